// Markdown as DOM nodes. The text comes from a model and is never parsed as HTML: only `createElement` and text nodes
// are used, and links go to http and https only. Time is linear in the text, but for nesting, which is bounded.

const DEEPEST = 10;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const DELIMITERS = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$/;
const LINK = /!?\[([^[\]]{1,1000})\]\((https?:\/\/(?:[^\s()<>]|\([^\s()<>]{0,500}\)){1,2000})(?:[ \t]+"[^"\n]{0,500}")?\)/iy;
const ADDRESS = /https?:\/\/[^\s<>"`]{1,2000}/iy;
const WORD = /[\p{L}\p{N}_]/u;
const PUNCTUATION = /[!-/:-@[-`{-~]/;

/** Shows a growing text in an element; blocks that have not changed keep their nodes. */
export class Markdown {
  /** @param {HTMLElement} element @param {(code: string) => HTMLElement} copyButton */
  constructor(element, copyButton) {
    this.element = element;
    this.copyButton = copyButton;
    this.shown = [];
  }

  /** @param {string} text All of it so far. */
  update(text) {
    const found = blocks(text.replaceAll("\r\n", "\n").split("\n"));
    let same = 0;
    while (same < found.length && same < this.shown.length && found[same].key === this.shown[same].key) same++;
    for (const block of this.shown.slice(same)) block.node.remove();
    for (const block of found.slice(same)) this.element.append((block.node = this.render(block, 0)));
    this.shown = [...this.shown.slice(0, same), ...found.slice(same)];
  }

  render(block, depth) {
    const [kind, lines] = [block.kind, block.lines];
    if (kind === "code") return this.code(block.language, lines.join("\n"));
    if (kind === "rule") return make("hr");
    if (kind === "heading") return inline(make(`h${Math.min(6, block.level + 2)}`), lines[0]);
    if (kind === "table") return table(block);
    if (kind === "quote") return this.nest(make("blockquote"), lines, depth);
    if (kind === "list") {
      const list = make(block.ordered ? "ol" : "ul");
      if (block.ordered && block.first !== 1) list.start = block.first;
      for (const item of block.items) list.append(this.nest(make("li"), item, depth, true));
      return list;
    }
    return inline(make("p"), lines.join("\n"));
  }

  /** Blocks inside of a block. A single paragraph of a list item needs no `p`. */
  nest(parent, lines, depth, tight = false) {
    if (depth === DEEPEST) return inline(parent, lines.join("\n"));
    const inner = blocks(lines);
    inner.forEach((block, index) => {
      if (tight && index === 0 && block.kind === "paragraph") inline(parent, block.lines.join("\n"));
      else parent.append(this.render(block, depth + 1));
    });
    return parent;
  }

  code(language, text) {
    const figure = make("figure");
    figure.className = "code";
    const caption = make("figcaption");
    const name = make("span");
    name.textContent = language.split(/\s/, 1)[0].slice(0, 40) || "text";
    caption.append(name, this.copyButton(text));
    const pre = make("pre");
    pre.tabIndex = 0; // scrolls with the keyboard
    pre.dir = "ltr";
    const code = make("code");
    code.textContent = text;
    pre.append(code);
    figure.append(caption, pre);
    return figure;
  }
}

const make = (name) => document.createElement(name);
const blank = (line) => line.trim() === "";
const indent = (line) => line.length - line.trimStart().length;

/** The blocks of lines. `key` tells whether a block has changed. */
function blocks(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (blank(lines[at])) {
      at++;
      continue;
    }
    const start = at;
    const [block, end] = code(lines, at) ?? single(lines, at) ?? quote(lines, at) ?? list(lines, at)
      ?? tableRows(lines, at) ?? paragraph(lines, at);
    at = end;
    block.key = `${block.kind} ${lines.slice(start, end).join("\n")}`;
    found.push(block);
  }
  return found;
}

function code(lines, at) {
  const open = FENCE.exec(lines[at]);
  if (!open) return null;
  const margin = indent(lines[at]);
  const inner = [];
  for (at++; at < lines.length; at++) {
    const close = lines[at].trim();
    if (close.length >= open[1].length && close === open[1][0].repeat(close.length)) {
      at++;
      break;
    }
    inner.push(lines[at].slice(Math.min(margin, indent(lines[at]))));
  }
  return [{ kind: "code", language: open[2].trim(), lines: inner }, at];
}

function single(lines, at) {
  const heading = HEADING.exec(lines[at]);
  if (heading) {
    let text = lines[at].slice(heading[0].length).trim();
    const closing = text.length - trimEnd(text, "#").length;
    if (closing && (closing === text.length || text[text.length - closing - 1] === " ")) text = trimEnd(text, "#").trim();
    return [{ kind: "heading", level: heading[1].length, lines: [text] }, at + 1];
  }
  return RULE.test(lines[at]) ? [{ kind: "rule", lines: [] }, at + 1] : null;
}

function trimEnd(text, letter) {
  let end = text.length;
  while (end && text[end - 1] === letter) end--;
  return text.slice(0, end);
}

function quote(lines, at) {
  const inner = [];
  for (; at < lines.length && QUOTE.test(lines[at]); at++) inner.push(lines[at].replace(QUOTE, ""));
  return inner.length ? [{ kind: "quote", lines: inner }, at] : null;
}

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  if (!first || first[1].length > 3) return null;
  const ordered = /\d/.test(first[2]);
  const base = first[1].length;
  const items = [];
  let inside = 0; // where the text of the current item begins
  let afterBlank = false;
  for (; at < lines.length; at++) {
    const line = lines[at];
    if (blank(line)) {
      items.at(-1).push("");
      afterBlank = true;
      continue;
    }
    const item = ITEM.exec(line);
    const depth = indent(line);
    if (items.length && depth >= Math.min(inside, base + 2)) {
      items.at(-1).push(line.slice(Math.min(depth, inside)));
    } else if (item && !RULE.test(line) && /\d/.test(item[2]) === ordered) {
      inside = Math.min(item[0].length, item[1].length + item[2].length + 4);
      items.push([line.slice(item[0].length)]);
    } else if (!afterBlank && !startsBlock(line)) {
      items.at(-1).push(line.trim());
    } else {
      break;
    }
    afterBlank = false;
  }
  return [{ kind: "list", ordered, first: parseInt(first[2], 10), items, lines: [] }, at];
}

function tableRows(lines, at) {
  if (!lines[at].includes("|") || at + 1 === lines.length || !DELIMITERS.test(lines[at + 1].trim())) return null;
  const sides = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left");
  const rows = [cells(lines[at])];
  if (rows[0].length !== sides.length) return null;
  for (at += 2; at < lines.length && !blank(lines[at]) && lines[at].includes("|"); at++) rows.push(cells(lines[at]));
  return [{ kind: "table", rows, sides, lines: [] }, at];
}

function cells(line) {
  const found = [""];
  for (let i = 0; i < line.length; i++) {
    if (line[i] === "\\" && line[i + 1] === "|") found[found.length - 1] += line[++i];
    else if (line[i] === "|") found.push("");
    else found[found.length - 1] += line[i];
  }
  if (blank(found[0])) found.shift();
  if (found.length && blank(found.at(-1))) found.pop();
  return found.map((cell) => cell.trim());
}

function table(block) {
  const wrap = make("div");
  wrap.className = "table";
  wrap.tabIndex = 0;
  const element = make("table");
  block.rows.forEach((row, index) => {
    const tr = make("tr");
    block.sides.forEach((side, column) => {
      const cell = inline(make(index ? "td" : "th"), row[column] ?? "");
      cell.className = side;
      tr.append(cell);
    });
    element.append(tr);
  });
  wrap.append(element);
  return wrap;
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function paragraph(lines, at) {
  const inner = [lines[at].trim()];
  for (at++; at < lines.length && !blank(lines[at]) && !startsBlock(lines[at]); at++) {
    if (tableRows(lines, at)) break;
    inner.push(lines[at].trim());
  }
  return [{ kind: "paragraph", lines: inner }, at];
}

/** Adds a text with its marks to an element. */
function inline(parent, text, depth = 0) {
  const absent = new Set(); // marks that do not come again
  let plain = "";
  let at = 0;
  const flush = () => {
    plain.split("\n").forEach((line, index) => {
      if (index) parent.append(make("br"));
      if (line) parent.append(line);
    });
    plain = "";
  };
  const add = (node, end) => {
    flush();
    parent.append(node);
    at = end;
  };
  while (at < text.length) {
    const letter = text[at];
    if (letter === "\\" && PUNCTUATION.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    const found = depth < DEEPEST && mark(text, at, absent, depth);
    if (found) {
      add(...found);
      continue;
    }
    // Marks that mean nothing are passed as a whole.
    const run = "`*_~".includes(letter) ? runLength(text, at) : 1;
    plain += text.slice(at, at + run);
    at += run;
  }
  flush();
  return parent;
}

/** What begins at a place: a node and where it ends, or null. */
function mark(text, at, absent, depth) {
  const letter = text[at];
  if (letter === "`") return codeSpan(text, at, absent);
  if (letter === "*" || letter === "_" || letter === "~") return emphasis(text, at, absent, depth);
  if (letter === "[" || (letter === "!" && text[at + 1] === "[")) {
    LINK.lastIndex = at;
    const found = LINK.exec(text);
    return found && link(found[2], found[1], at + found[0].length, depth);
  }
  if ((letter === "h" || letter === "H") && !(at && WORD.test(text[at - 1]))) {
    ADDRESS.lastIndex = at;
    const found = ADDRESS.exec(text)?.[0];
    if (!found) return null;
    let end = found.length;
    while (end && ".,;:!?'*_)]}".includes(found[end - 1])) {
      if (found[end - 1] === ")" && found.slice(0, end).includes("(")) break;
      end--;
    }
    return link(found.slice(0, end), null, at + end, depth);
  }
  return null;
}

function codeSpan(text, at, absent) {
  const run = runLength(text, at);
  const ticks = "`".repeat(run);
  if (run > 16 || absent.has(ticks)) return null;
  for (let end = text.indexOf(ticks, at + run); end >= 0;) {
    const length = runLength(text, end);
    if (length === run) {
      const node = make("code");
      const inner = text.slice(at + run, end);
      node.textContent = inner.startsWith(" ") && inner.endsWith(" ") && !blank(inner) ? inner.slice(1, -1) : inner;
      return [node, end + run];
    }
    end = text.indexOf(ticks, end + length);
  }
  absent.add(ticks);
  return null;
}

function emphasis(text, at, absent, depth) {
  const letter = text[at];
  const size = Math.min(2, runLength(text, at));
  const delimiter = letter.repeat(size);
  if ((letter === "~" && size === 1) || absent.has(delimiter)) return null;
  if (/\s/.test(text[at + size] ?? " ") || (letter === "_" && at && WORD.test(text[at - 1]))) return null;
  for (let end = text.indexOf(delimiter, at + size); end >= 0;) {
    const run = runLength(text, end);
    const last = end + run - size; // of a longer run, its end: what is before closes marks inside
    const fits = size === 1 ? run !== 2 : run >= 2;
    const opens = /\s/.test(text[end - 1]) || (letter === "_" && WORD.test(text[end + run] ?? " "));
    if (fits && !opens && last > at + size - 1) {
      const node = make(letter === "~" ? "s" : size === 2 ? "strong" : "em");
      return [inline(node, text.slice(at + size, last), depth + 1), last + size];
    }
    end = text.indexOf(delimiter, end + run);
  }
  absent.add(delimiter);
  return null;
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end++;
  return end - at;
}

function link(address, label, end, depth) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  const node = make("a");
  node.href = url.href;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  node.title = url.href;
  if (label === null) node.textContent = address;
  else inline(node, label, DEEPEST);
  return [node, end];
}
