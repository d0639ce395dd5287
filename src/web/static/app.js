// Takes what is dropped or chosen, sends file after file, shows how far each is and what was found.
"use strict";
(() => {
  const app = document.getElementById("app");
  const words = JSON.parse(app.dataset.words);
  const media = new Set(app.dataset.accept.split(","));
  const most = Number(app.dataset.most);
  const form = document.getElementById("drop");
  const list = document.getElementById("files");
  const file = document.getElementById("file");
  const folder = document.getElementById("folder");
  const AT_ONCE = 2; // one is sent while another is looked at
  const MOST_FILES = 2000; // of a folder
  const MOST_OTHERS = 20000; // files of a folder that are nothing for us, after which it is given up
  const QUIET = 5000; // milliseconds between two steps that are read aloud
  const queue = [];
  const unfinished = new Set();
  let running = 0;
  let finished = 0;

  const say = (key, values = {}) =>
    words[key].replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all));
  // Marks that act on the text around them are shown by their numbers.
  const plain = (name) =>
    name.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  let told = 0; // when something was read aloud
  const announce = (text) => {
    document.getElementById("status").textContent = text;
    if (text) told = Date.now();
  };
  const mention = (one, said) => { // what nobody must hear: only where nothing else was said lately
    if (Date.now() - told > QUIET) announce(say("finished", { name: plain(one.name), said }));
  };
  const make = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const isMedia = (name) => media.has(name.slice(name.lastIndexOf(".")).toLowerCase());

  // `others`: files left out already; `cut`: whether there are more than were found.
  function take(found, others = 0, cut = false) {
    // A single file is sent whatever it is called: the server knows kinds by their bytes too.
    const read = found.length === 1 ? found : found.filter(({ name }) => isMedia(name));
    const taken = read.slice(0, MOST_FILES);
    const left = others + found.length - read.length;
    const said = [];
    if (!taken.length) said.push(say("dropped_none"));
    else if (left) said.push(say("left_out", { count: left }));
    if (cut || taken.length < read.length) said.push(say("beyond", { count: taken.length }));
    announce(said.join(" "));
    for (const one of taken) queue.push(line(one));
    next();
  }

  function line({ name, content }) {
    const item = make("li");
    const row = make("div", "file-line");
    const state = make("span", "soft", say("waiting", { place: queue.length + 1 }));
    const bar = make("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", plain(name));
    const cancel = make("button", "", say("cancel"));
    cancel.type = "button";
    cancel.setAttribute("aria-label", say("of_file", { action: say("cancel"), name: plain(name) }));
    row.append(make("span", "what", plain(name)), bar, state, cancel);
    item.append(row);
    list.append(item);
    const one = { name, content, item, state, bar, request: null, timer: 0, over: false };
    unfinished.add(one);
    cancel.addEventListener("click", () => {
      one.over = true;
      unfinished.delete(one);
      clearTimeout(one.timer);
      if (one.request) one.request.abort();
      const place = queue.indexOf(one);
      if (place >= 0) queue.splice(place, 1);
      item.remove();
      if (one.timer) next(); // which it held up
      (list.querySelector("button") || document.getElementById("choose")).focus();
    });
    return one;
  }

  function next() {
    while (running < AT_ONCE && queue.length) {
      running += 1;
      send(queue.shift());
    }
  }

  function done(one, again) {
    running -= 1;
    if (again && !one.over) {
      one.state.textContent = say("again", { seconds: again });
      one.timer = setTimeout(() => { queue.unshift(one); next(); }, again * 1000);
      return; // the next one would not fit either
    }
    if (!one.over) finished += 1;
    one.over = true;
    unfinished.delete(one);
    if (!unfinished.size && finished > 1) announce(say("all_done", { count: finished }));
    next();
  }

  function send(one) {
    if (one.content.size > most) {
      fail(one, say("too_large", { most: Math.round(most / 1e6) }));
      return done(one);
    }
    const request = new XMLHttpRequest();
    one.request = request;
    let read = 0;
    let last = null;
    request.open("POST", `${app.dataset.stream}&name=${encodeURIComponent(one.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      one.bar.value = event.loaded / event.total;
      one.state.textContent = say("sending", { share: Math.round(100 * one.bar.value) });
    });
    request.upload.addEventListener("load", () => one.bar.removeAttribute("value"));
    request.addEventListener("progress", () => {
      if (request.status !== 200) return;
      const lines = request.responseText.slice(read).split("\n");
      lines.pop(); // not whole yet
      for (const text of lines) {
        read += text.length + 1;
        last = JSON.parse(text);
        const step = last.state === "waiting" ? say("waiting", last) : words[`step_${last.step}`] || last.step;
        if (!step || one.state.textContent === step) continue;
        one.state.textContent = step;
        mention(one, step);
      }
    });
    request.addEventListener("loadend", () => {
      if (one.over) return done(one);
      if (request.status === 429) return done(one, Number(request.getResponseHeader("Retry-After")) || 5);
      if (last && last.state === "done") show(one, last);
      else fail(one, last && last.error ? last.error : refusal(request));
      return done(one);
    });
    request.send(one.content);
  }

  function refusal(request) {
    try {
      return JSON.parse(request.responseText).error || words.lost;
    } catch {
      return words.lost;
    }
  }

  // Puts in place of a line's parts what has come of it; the focus stays where it was.
  function replace(one, parts, next) {
    const held = one.item.contains(document.activeElement);
    one.item.replaceChildren(...parts);
    if (held) next.focus();
  }

  function fail(one, text) {
    const row = make("div", "file-line");
    row.append(make("span", "what", plain(one.name)), make("span", "unsure", words.failed));
    const why = make("p", "panel trouble", text);
    why.tabIndex = -1;
    replace(one, [row, why], why);
    announce(say("finished", { name: plain(one.name), said: `${words.failed}. ${text}` }));
  }

  function show(one, answer) {
    const said = words[`said_${answer.said || "unreadable"}`];
    const box = make("details");
    const head = make("summary");
    const number = answer.prob === null ? "" : ` ${answer.prob.toFixed(2)}`;
    head.append(make("span", "what", plain(one.name)), " ", make("strong", answer.said || "unsure", said), number);
    // Made by the server with everything escaped; scripts in it would not run.
    const part = new DOMParser().parseFromString(answer.html, "text/html");
    box.append(head, ...part.body.childNodes);
    if (answer.look) {
      const link = make("a", "", words.open);
      link.href = `look/${answer.look}${location.search || ""}`;
      const place = make("p");
      place.append(link);
      box.append(place);
    }
    box.open = !list.querySelector(":scope > li > details[open]");
    replace(one, [box], head);
    announce(say("finished", { name: plain(one.name), said }));
  }

  // Adds the media of a folder to `all.found`, counts other files, and notes where it had to stop.
  async function walk(entry, all) {
    if (all.cut) return;
    if (entry.isFile) {
      if (!isMedia(entry.name)) all.others += 1;
      all.cut = all.others > MOST_OTHERS || (isMedia(entry.name) && all.found.length >= MOST_FILES);
      if (all.cut || !isMedia(entry.name)) return;
      const content = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
      if (content) all.found.push({ name: entry.fullPath.replace(/^\//, ""), content });
      return;
    }
    const reader = entry.createReader();
    while (!all.cut) { // a hundred at a time
      const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
      if (!some.length) return;
      for (const one of some) await walk(one, all);
    }
  }

  const named = (files) => Array.from(files, (content) => ({ name: content.webkitRelativePath || content.name, content }));

  for (const element of document.querySelectorAll(".with-script")) element.hidden = false;
  for (const element of form.querySelectorAll(".plain")) element.hidden = true;
  document.getElementById("choose").addEventListener("click", () => file.click());
  document.getElementById("choose-folder").addEventListener("click", () => folder.click());
  for (const input of [file, folder]) {
    input.addEventListener("change", () => {
      take(named(input.files));
      input.value = ""; // so that the same file can be chosen again
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); form.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) form.classList.remove("over"); });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    form.classList.remove("over");
    // Entries must be asked for before anything is waited for: after that there are none.
    const entries = Array.from(event.dataTransfer.items, (item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const files = named(event.dataTransfer.files);
    if (!entries.some((entry) => entry && entry.isDirectory)) return take(files);
    const all = { found: [], others: 0, cut: false };
    for (const entry of entries) if (entry) await walk(entry, all);
    return take(all.found, all.others, all.cut);
  });
})();
