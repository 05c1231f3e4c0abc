// Shows the log of a job: its end first, earlier lines on demand, and new ones while the job runs.
//
// Text is only ever set as text, and colors only as values of style properties: what a job prints cannot become HTML.
"use strict";

(() => {
  const MAX_CHARACTERS = 4 * 1024 * 1024; // on the page
  const END = 40; // pixels that still count as the end
  const TEXT = "#d1d5db";
  const BACKGROUND = "#0d1117";
  const PALETTE = [
    "#8b949e", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
    "#8b949e", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
  ];

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function colorOf(name) {
    return /^#[0-9a-f]{6}$/.test(name) ? name : PALETTE[Number(name)] || TEXT;
  }

  function runElement(run) {
    const flags = run.flags || [];
    const made = element("span", flags.map((flag) => `job-${flag}`).join(" "), run.text);
    let text = run.color && colorOf(run.color);
    let background = run.background && colorOf(run.background);
    if (flags.includes("inverse")) [text, background] = [background || BACKGROUND, text || TEXT];
    if (text) made.style.color = text;
    if (background) made.style.backgroundColor = background;
    return made;
  }

  function lineElement(line) {
    const made = element("div", `job-line job-line-${line.stream === "stderr" ? "stderr" : "stdout"}`);
    if (line.partial) made.classList.add("job-line-partial");
    if (line.marker) made.classList.add("job-line-marker");
    made.dataset.number = line.number;
    made.characters = line.runs.reduce((sum, run) => sum + run.text.length, 0);
    const number = element("span", "job-line-number", line.number);
    number.title = `${line.stream}, ${line.time}`;
    const text = element("span", "job-line-text");
    text.append(...(line.runs.length ? line.runs.map(runElement) : ["\u00a0"]));
    made.append(number, element("time", "", line.time.slice(11, 23)), text);
    return made;
  }

  class LogView {
    constructor(root) {
      this.root = root;
      this.url = root.dataset.url;
      this.pause = Number(root.dataset.pause) * 1000;
      this.lines = document.getElementById("job-log-lines");
      this.status = document.getElementById("job-log-status");
      this.follow = document.getElementById("job-log-follow");
      this.earlier = this.button("Load earlier lines", () => this.loadEarlier());
      this.later = this.button("Go to the end", () => this.loadEnd());
      this.after = 0; // number of the last line that was read
      this.styles = {}; // in which the next line of each stream begins
      this.ended = false; // no more lines will come
      this.detached = false; // the end is not on the page, so new lines are not added
      this.round = 0; // answers of earlier rounds are too late
      this.addListeners();
      this.loadEnd();
    }

    button(title, action) {
      const made = element("button", "job-log-more", title);
      made.type = "button";
      made.addEventListener("click", action);
      return made;
    }

    addListeners() {
      this.lines.addEventListener("scroll", () => {
        const left = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight;
        if (!this.detached) this.follow.checked = left < END;
      });
      this.follow.addEventListener("change", () => {
        if (this.follow.checked && this.detached) this.loadEnd();
        else if (this.follow.checked) this.scrollToEnd();
      });
      const stream = document.getElementById("job-log-stream");
      stream.addEventListener("change", () => {
        for (const name of ["stdout", "stderr"]) this.lines.classList.toggle(`job-log-only-${name}`, stream.value === name);
        if (this.follow.checked) this.scrollToEnd();
      });
      for (const name of ["times", "wrap"]) {
        const box = document.getElementById(`job-log-${name}`);
        const apply = () => this.lines.classList.toggle(`job-log-${name}`, box.checked);
        box.addEventListener("change", apply);
        apply();
      }
    }

    async ask(parameters) {
      // A redirect leads to the login page, because the session is over.
      const answer = await fetch(`${this.url}?${new URLSearchParams(parameters)}`, { redirect: "manual" });
      if (answer.type === "opaqueredirect") throw new Error("your session has ended, reload the page");
      if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
      return answer.json();
    }

    async loadEnd() {
      const round = ++this.round;
      await this.attempt(round, async () => {
        const piece = await this.ask({});
        if (round !== this.round) return;
        this.lines.replaceChildren();
        this.detached = false;
        this.follow.checked = true;
        this.append(piece);
      });
      this.schedule(round);
    }

    async poll(round) {
      let more = true;
      while (more && round === this.round && !document.hidden && !this.detached) {
        more = false;
        await this.attempt(round, async () => {
          const piece = await this.ask({ after: this.after, ...this.styles });
          if (round !== this.round || this.detached) return; // lines would be missing before these
          this.append(piece);
          more = piece.more;
        });
      }
      this.schedule(round);
    }

    schedule(round) {
      if (round !== this.round || this.ended) return;
      setTimeout(() => {
        if (round === this.round) this.after ? this.poll(round) : this.loadEnd();
      }, this.pause);
    }

    async loadEarlier() {
      const round = this.round;
      this.earlier.disabled = true;
      await this.attempt(round, async () => {
        const piece = await this.ask({ before: this.firstNumber() });
        if (round !== this.round) return;
        const below = this.lines.scrollHeight - this.lines.scrollTop;
        this.earlier.remove();
        this.lines.prepend(...piece.lines.map(lineElement));
        this.detached = this.removeBeyond([...this.shown()]) || this.detached;
        this.follow.checked = false;
        this.showButtons();
        this.lines.scrollTop = this.lines.scrollHeight - below;
      });
      this.earlier.disabled = false;
    }

    // Do something that may fail, and say so.
    async attempt(round, step) {
      try {
        await step();
        if (round === this.round) this.say(this.condition());
      } catch (error) {
        if (round === this.round) this.say(`The log cannot be read: ${error.message}`);
      }
    }

    append(piece) {
      const atEnd = this.follow.checked;
      this.later.remove();
      this.lines.append(...piece.lines.map(lineElement));
      // At the end the first lines make room. Elsewhere they are being read: then the new ones are not shown.
      if (atEnd) this.removeBeyond([...this.shown()].reverse());
      else this.detached = this.removeBeyond([...this.shown()]) || this.detached;
      this.after = piece.after;
      this.styles = piece.styles;
      this.ended = piece.ended;
      this.showButtons();
      if (atEnd) this.scrollToEnd();
    }

    // Keep the page small: remove the lines, given in the order in which they are kept, that are too many. Return whether there
    // were any.
    removeBeyond(lines) {
      let left = MAX_CHARACTERS;
      const kept = lines.slice(0, Number(this.root.dataset.lines)).findIndex((line) => (left -= line.characters) < 0);
      const beyond = lines.slice(kept < 0 ? Number(this.root.dataset.lines) : Math.max(1, kept));
      for (const line of beyond) line.remove();
      return beyond.length > 0;
    }

    showButtons() {
      if (this.firstNumber() > 1) this.lines.prepend(this.earlier);
      else this.earlier.remove();
      if (this.detached) this.lines.append(this.later);
      else this.later.remove();
    }

    shown() {
      return this.lines.querySelectorAll(".job-line");
    }

    firstNumber() {
      return Number(this.lines.querySelector(".job-line")?.dataset.number || 1);
    }

    scrollToEnd() {
      this.lines.scrollTop = this.lines.scrollHeight;
    }

    condition() {
      if (!this.after) return this.ended ? "It printed nothing." : "It has printed nothing yet.";
      if (this.detached) return `Later lines are not shown: the page holds ${this.root.dataset.lines} at most.`;
      return this.ended ? "" : "Waiting for more …";
    }

    say(text) {
      this.status.textContent = text;
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("job-log");
    if (root) new LogView(root);
  });
})();
