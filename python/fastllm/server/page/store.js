// What the browser keeps: the conversation and the settings in its local storage, the API key for this tab only.

const MESSAGES = "fastllm.messages";
const SETTINGS = "fastllm.settings";
const KEY = "fastllm.key";

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null; // damaged, or storage is turned off
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false; // full, or turned off
  }
}

const text = (value) => (typeof value === "string" ? value : "");
const number = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);

export function loadSettings() {
  const kept = read(SETTINGS) ?? {};
  return {
    model: text(kept.model),
    system: text(kept.system),
    temperature: Math.min(2, Math.max(0, number(kept.temperature, 0.7))),
    maxTokens: kept.maxTokens > 0 ? Math.trunc(kept.maxTokens) : null,
  };
}

export function saveSettings(settings) {
  return write(SETTINGS, settings);
}

/** The conversation, as far as it makes sense. */
export function loadMessages() {
  const kept = read(MESSAGES);
  if (!Array.isArray(kept)) return [];
  return kept.filter((one) => (one?.role === "user" || one?.role === "assistant") && typeof one.content === "string").map((one) => ({
    role: one.role,
    content: one.content,
    ...(one.reasoning ? { reasoning: text(one.reasoning) } : {}),
    ...(one.thoughtFor ? { thoughtFor: number(one.thoughtFor, null) } : {}),
    ...(Array.isArray(one.toolCalls)
      ? { toolCalls: one.toolCalls.filter(Boolean).map((call) => ({ name: text(call.name), arguments: text(call.arguments) })) }
      : {}),
    ...(one.error ? { error: text(one.error) } : {}),
    ...(one.stopped ? { stopped: true } : {}),
    ...(one.finish ? { finish: text(one.finish) } : {}),
    ...(one.stats && Number.isFinite(one.stats.tokens) ? { stats: one.stats } : {}),
  }));
}

/** Whether there was room. */
export function saveMessages(messages) {
  return write(MESSAGES, messages);
}

export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function setApiKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Turned off: the field has it until the page is left.
  }
}
