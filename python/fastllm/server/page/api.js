// The server's API: the models, and answers as a stream of server-sent events.

/** A failure, said in words. `needsKey`: the server wants an API key. */
export class ApiError extends Error {
  constructor(message, needsKey = false) {
    super(message);
    this.needsKey = needsKey;
  }
}

// Relative: the page may be served below a path.
const MODELS = "v1/models";
const CHAT = "v1/chat/completions";
const LONGEST_LINE = 16 * 1024 * 1024;

/** The names of the models that the server has. */
export async function listModels(key) {
  const response = await request(MODELS, { headers: headers(key) });
  const body = await response.json().catch(() => null);
  if (!Array.isArray(body?.data)) throw new ApiError("The server gave no list of models.");
  return body.data.map((model) => String(model.id));
}

/**
 * An answer: yields the events of the stream, parsed.
 * @param {object} body The request. @param {string} key @param {AbortSignal} signal Stops it.
 */
export async function* streamChat(body, key, signal) {
  const response = await request(CHAT, {
    method: "POST",
    headers: { ...headers(key), "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let done = false;
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      done = true;
      break;
    }
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      throw new ApiError("The server sent something that is no JSON.");
    }
    if (event?.error) throw new ApiError(sentence(event.error.message ?? event.error) || "The server gave up.");
    yield event;
  }
  if (!done) throw new ApiError("The connection ended before the answer did.");
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  throw new ApiError(inWords(response, text), response.status === 401 || response.status === 403);
}

function inWords(response, text) {
  let said = "";
  try {
    const body = JSON.parse(text);
    said = sentence(body.error?.message ?? body.message ?? body.detail);
  } catch {
    // Not JSON: a proxy's page, of no use here.
  }
  const after = Number(response.headers.get("Retry-After"));
  switch (response.status) {
    case 401:
    case 403:
      return "The server asks for an API key. Enter it in the settings.";
    case 404:
      return said || "The server does not know this model or address.";
    case 413:
      return said || "The conversation is too long for the server.";
    case 429:
    case 503:
      return `The server is busy. Try again ${after > 0 ? `in ${after} s` : "in a moment"}.`;
    default:
      return said || `The server answered with an error (${response.status}).`;
  }
}

/** A message as a sentence. */
function sentence(value) {
  const text = typeof value === "string" ? value.trim() : "";
  if (!text) return "";
  return text[0].toUpperCase() + text.slice(1) + (/[.!?…।]$/.test(text) ? "" : ".");
}

/** The data of server-sent events. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The connection ended before the answer did.");
      });
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      if (rest.length > LONGEST_LINE) throw new ApiError("The server sent a line without an end.");
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
