// The chat page: a conversation, its settings, and one answer at a time.

import { ApiError, listModels, streamChat } from "./api.js";
import { MessageView } from "./view.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
const input = $("input");
const log = $("log");
const scroller = $("scroller");

const settings = store.loadSettings();
let messages = store.loadMessages();
let views = [];
let answering = null; // the AbortController of the answer that is being written
let cleared = null; // what Undo brings back
let following = true; // whether the newest text is kept in sight

// The conversation

function show(message) {
  const view = new MessageView(message, { onRetry: retry });
  views.push(view);
  log.append(view.element);
  return view;
}

function refresh() {
  $("welcome").hidden = messages.length > 0;
  $("clear").disabled = messages.length === 0;
  $("send").disabled = answering !== null || input.value.trim() === "";
  $("send").hidden = answering !== null;
  $("stop").hidden = answering === null;
  views.forEach((view, index) => view.setLast(answering === null && index === views.length - 1));
}

function save() {
  if (!store.saveMessages(messages)) announce("This conversation is too long to be kept when the page is closed.");
}

function send(text) {
  if (answering || text.trim() === "") return;
  hideToast();
  const message = { role: "user", content: text };
  messages.push(message);
  show(message);
  following = true;
  answer();
}

function retry() {
  if (answering || messages.at(-1)?.role !== "assistant") return;
  messages.pop();
  views.pop().element.remove();
  answer();
}

/** Answers the conversation as it is. */
async function answer() {
  const message = { role: "assistant", content: "" };
  const request = { ...requestOptions(), messages: toSend() };
  messages.push(message);
  const view = show(message);
  answering = new AbortController();
  view.setBusy(true);
  refresh();
  save();
  announce("The answer is being written.");
  const timing = { start: performance.now() };
  try {
    for await (const event of streamChat(request, store.apiKey(), answering.signal)) {
      take(message, event, timing);
      view.update(keepInSight);
    }
  } catch (error) {
    if (error.name === "AbortError") message.stopped = true;
    else if (error instanceof ApiError) message.error = error.message;
    else {
      message.error = "Something is wrong with this page. The browser's console says more.";
      console.error(error);
    }
    if (error.needsKey) openSettings($("key"));
  } finally {
    answering = null;
    message.stats = statistics(message, timing);
    view.setBusy(false);
    view.finish(keepInSight);
    refresh();
    save();
    announce(message.error ?? (message.stopped ? "Stopped." : `Answer: ${message.content.slice(0, 2000)}`));
  }
}

/** Adds an event of the stream to the answer. */
function take(message, event, timing) {
  if (event.usage) timing.usage = event.usage;
  const choice = event.choices?.[0];
  if (!choice) return;
  const delta = choice.delta ?? {};
  const now = performance.now();
  if (delta.reasoning_content) {
    message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
    timing.thinking ??= now;
  }
  if (delta.content || delta.tool_calls?.length) {
    if (timing.thinking && !message.thoughtFor) message.thoughtFor = (now - timing.thinking) / 1000;
  }
  if (delta.content) message.content += delta.content;
  for (const part of delta.tool_calls ?? []) addToolCall(message, part);
  if (delta.content || delta.reasoning_content || delta.tool_calls?.length) {
    timing.first ??= now;
    timing.last = now;
    timing.pieces = (timing.pieces ?? 0) + 1;
  }
  if (choice.finish_reason) message.finish = choice.finish_reason;
}

function addToolCall(message, part) {
  message.toolCalls ??= [];
  const index = Number.isInteger(part.index) && part.index >= 0 && part.index < 256 ? part.index : 0;
  const call = (message.toolCalls[index] ??= { name: "", arguments: "" });
  call.name += part.function?.name ?? "";
  call.arguments += part.function?.arguments ?? "";
}

function statistics(message, timing) {
  if (!timing.first) return null;
  // Without the server's count (it was stopped), each piece is about a token.
  const tokens = timing.usage?.completion_tokens ?? timing.pieces;
  const seconds = (timing.last - timing.first) / 1000;
  // Pieces that came within a moment were waiting in the connection: their times say nothing of the model.
  const measured = tokens > 1 && seconds >= 0.02;
  return {
    tokens,
    counted: timing.usage !== undefined,
    perSecond: measured ? (tokens - 1) / seconds : null,
    first: (timing.first - timing.start) / 1000,
  };
}

function toSend() {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  // A question without an answer is not asked again with the next one: it may be what failed, and templates want turns.
  const answered = (index) => messages[index + 1]?.role === "assistant" && messages[index + 1].content !== "";
  const said = messages.filter(({ role, content }, index) =>
    role === "user" ? answered(index) || index === messages.length - 1 : content !== "");
  return [...system, ...said.map(({ role, content }) => ({ role, content }))];
}

function requestOptions() {
  const options = { model: $("model").value, temperature: settings.temperature };
  if (settings.maxTokens) options.max_tokens = settings.maxTokens;
  return options;
}

function clear() {
  answering?.abort();
  cleared = messages;
  messages = [];
  draw();
  save();
  showToast("The conversation was cleared.");
  input.focus();
}

function undo() {
  if (!cleared) return;
  messages = cleared;
  hideToast();
  draw();
  save();
  input.focus();
}

function draw() {
  log.replaceChildren();
  views = [];
  for (const message of messages) show(message).finish();
  refresh();
  scroller.scrollTop = scroller.scrollHeight;
}

// What the page says

function announce(text) {
  $("status").textContent = text;
}

let toastTimer;
function showToast(text) {
  $("toast").firstElementChild.textContent = text;
  $("toast").hidden = false;
  announce(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hideToast, 10_000);
}

function hideToast() {
  clearTimeout(toastTimer);
  $("toast").hidden = true;
  cleared = null;
}

// Scrolling: the newest text stays in sight, unless the reader went back.

function atEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
}

function keepInSight() {
  if (following) scroller.scrollTop = scroller.scrollHeight;
  $("newest").hidden = following;
}

scroller.addEventListener("scroll", () => {
  following = atEnd();
  $("newest").hidden = following;
}, { passive: true });
$("newest").addEventListener("click", () => {
  following = true;
  keepInSight();
  input.focus();
});

// Writing

function fit() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

input.addEventListener("input", () => {
  fit();
  refresh();
});
input.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter belongs to it.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && answering && !$("settings").open) answering.abort();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (answering) return;
  const text = input.value;
  input.value = "";
  fit();
  send(text);
});
$("stop").addEventListener("click", () => {
  answering?.abort();
  input.focus();
});
$("suggestions").addEventListener("click", (event) => {
  if (event.target instanceof HTMLButtonElement) send(event.target.textContent);
});
$("clear").addEventListener("click", clear);
$("toast").lastElementChild.addEventListener("click", undo);
log.addEventListener("copied", (event) => announce(event.detail));

// Settings

function openSettings(focus) {
  if (!$("settings").open) $("settings").showModal();
  focus?.focus();
}

function bindSettings() {
  $("system").value = settings.system;
  $("temperature").value = settings.temperature;
  $("max-tokens").value = settings.maxTokens ?? "";
  $("key").value = store.apiKey();
  const changed = () => {
    settings.system = $("system").value;
    settings.temperature = Number($("temperature").value);
    settings.maxTokens = Number.parseInt($("max-tokens").value, 10) || null;
    $("temperature-value").textContent = settings.temperature.toFixed(1);
    store.saveSettings(settings);
  };
  for (const id of ["system", "temperature", "max-tokens"]) $(id).addEventListener("input", changed);
  changed();
  $("key").addEventListener("change", () => {
    store.setApiKey($("key").value.trim());
    loadModels();
  });
  $("open-settings").addEventListener("click", () => openSettings());
  $("settings").addEventListener("click", (event) => {
    if (event.target === $("settings")) $("settings").close(); // beside the dialog
  });
  $("settings").addEventListener("close", () => input.focus());
}

async function loadModels() {
  let names;
  try {
    names = await listModels(store.apiKey());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    names = [];
    announce(error.message);
    $("model").title = error.message;
    if (error.needsKey) openSettings($("key"));
  }
  const options = names.map((name) => new Option(name, name, false, name === settings.model));
  if (options.length === 0) options.push(new Option("no model", ""));
  else $("model").title = "";
  $("model").replaceChildren(...options);
  $("model").disabled = names.length === 0;
}

$("model").addEventListener("change", () => {
  settings.model = $("model").value;
  store.saveSettings(settings);
});

addEventListener("pagehide", save);
bindSettings();
draw();
fit();
loadModels();
if (matchMedia("(hover: hover)").matches) input.focus(); // no keyboard over half of a phone
