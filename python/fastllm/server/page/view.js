// How a message looks. Text of models goes through `Markdown` or into text nodes.

import { Markdown } from "./markdown.js";

const template = document.getElementById("message-template");

/** One message on the page. */
export class MessageView {
  constructor(message, { onRetry }) {
    this.message = message;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.role = message.role;
    this.element.querySelector("h3").textContent = message.role === "user" ? "You" : "Model";
    this.parts = this.element.querySelector(".parts");
    this.stats = this.element.querySelector(".stats");
    this.actions = this.element.querySelector(".actions");
    this.tools = [];
    this.waiting = false;
    if (message.role === "user") {
      const content = node("div", "content");
      content.dir = "auto";
      content.textContent = message.content;
      this.parts.append(content);
    } else {
      this.retry = button("Try again", onRetry);
    }
  }

  setBusy(busy) {
    this.element.setAttribute("aria-busy", String(busy));
    this.element.classList.toggle("busy", busy);
  }

  /** Only the last answer can be tried again. */
  setLast(last) {
    if (this.retry) this.retry.hidden = !last;
  }

  /** Shows what has changed, at the next frame; a long text less often. */
  update(shown) {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => requestAnimationFrame(() => {
      if (!this.waiting) return;
      this.waiting = false;
      this.draw();
      shown();
    }), 4 * (this.cost ?? 0));
  }

  /** Shows the end of an answer. */
  finish(shown) {
    this.waiting = false;
    if (this.message.role === "assistant") {
      this.draw();
      this.drawEnd();
    }
    shown?.();
  }

  draw() {
    const start = performance.now();
    const { reasoning, content, toolCalls } = this.message;
    if (reasoning) this.drawReasoning(reasoning);
    if (content) {
      if (!this.content) {
        const element = node("div", "content");
        element.dir = "auto";
        this.parts.append(element);
        this.content = new Markdown(element, copyButton);
      }
      this.content.update(content);
    }
    toolCalls?.forEach((call, index) => call && this.drawTool(call, index));
    this.cost = performance.now() - start;
  }

  drawReasoning(text) {
    if (!this.reasoning) {
      const details = folded("reasoning", "");
      const element = node("div", "content");
      element.dir = "auto";
      details.append(element);
      this.parts.prepend(details);
      this.reasoning = { summary: details.firstElementChild, markdown: new Markdown(element, copyButton) };
    }
    const { thoughtFor, content, toolCalls, finish } = this.message;
    const over = content || toolCalls || finish || this.message.stopped || this.message.error;
    const seconds = thoughtFor ? ` for ${thoughtFor < 10 ? thoughtFor.toFixed(1) : Math.round(thoughtFor)} s` : "";
    this.reasoning.summary.textContent = over ? `Thought${seconds}` : "Thinking…";
    this.reasoning.markdown.update(text);
  }

  drawTool(call, index) {
    if (!this.tools[index]) {
      const details = folded("tool", "Calls ");
      const name = node("code");
      details.firstElementChild.append(name);
      const pre = node("pre");
      pre.tabIndex = 0;
      details.append(pre);
      this.parts.append(details);
      this.tools[index] = { name, pre };
    }
    this.tools[index].name.textContent = call.name || "…";
    this.tools[index].pre.textContent = pretty(call.arguments);
  }

  drawEnd() {
    const { content, toolCalls, reasoning, error, stopped, finish } = this.message;
    if (error) {
      const notice = node("p", "notice");
      notice.setAttribute("role", "alert");
      notice.textContent = error;
      this.parts.append(notice);
    } else if (!content && !toolCalls && !reasoning && !stopped) {
      const empty = node("p", "note");
      empty.textContent = "The model answered with nothing.";
      this.parts.append(empty);
    }
    this.stats.textContent = [...statistics(this.message.stats), ending(stopped, finish)].filter(Boolean).join(" · ");
    this.actions.replaceChildren(...(content ? [copyButton(content)] : []), this.retry);
  }
}

function statistics(stats) {
  if (!stats) return [];
  const tokens = `${stats.counted ? "" : "about "}${stats.tokens} token${stats.tokens === 1 ? "" : "s"}`;
  const speed = stats.perSecond && `${stats.perSecond.toFixed(stats.perSecond < 100 ? 1 : 0)} tokens/s`;
  return [tokens, speed, stats.first >= 0 && `first after ${stats.first.toFixed(2)} s`];
}

function ending(stopped, finish) {
  if (stopped) return "stopped";
  if (finish === "length") return "cut off at the longest length";
  return finish === "timeout" ? "cut off: it took too long" : "";
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json; // not complete yet, or not JSON
  }
}

function node(name, className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  return made;
}

function folded(className, title) {
  const details = node("details", className);
  const summary = node("summary");
  summary.textContent = title;
  details.append(summary);
  return details;
}

function button(title, onClick) {
  const made = node("button", "link");
  made.type = "button";
  made.textContent = title;
  made.addEventListener("click", onClick);
  return made;
}

/** A button that copies a text and says whether it could. */
export function copyButton(text) {
  const made = button("Copy", async () => {
    const copied = await copy(text);
    made.textContent = copied ? "Copied" : "Not copied";
    made.dispatchEvent(new CustomEvent("copied", { bubbles: true, detail: made.textContent }));
    setTimeout(() => (made.textContent = "Copy"), 2000);
  });
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // There is no clipboard on pages that came over plain http from another machine.
    const area = node("textarea", "hidden");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
