// Keeps the state and the events of a job up to date while its page is open, until neither will change any more.
//
// Elements are changed in place, not replaced: what has the focus keeps it, what was opened stays open, and nothing flickers.
"use strict";

(() => {
  const PARTS = ["job-state", "job-events"];

  function isSame(shown, fresh) {
    if (shown.nodeType !== fresh.nodeType || shown.nodeName !== fresh.nodeName || shown.id !== fresh.id) return false;
    // htmx has read this attribute already, so a change would be ignored
    return shown.nodeType !== Node.ELEMENT_NODE || shown.getAttribute("hx-get") === fresh.getAttribute("hx-get");
  }

  function update(shown, fresh) {
    if (shown.isEqualNode(fresh)) return;
    if (shown.nodeType !== Node.ELEMENT_NODE) {
      shown.nodeValue = fresh.nodeValue;
      return;
    }
    const isKept = (name) => shown.nodeName === "DETAILS" && name === "open"; // the user's choice
    for (const name of shown.getAttributeNames()) {
      if (!fresh.hasAttribute(name) && !isKept(name)) shown.removeAttribute(name);
    }
    for (const name of fresh.getAttributeNames()) {
      if (shown.getAttribute(name) !== fresh.getAttribute(name) && !isKept(name)) shown.setAttribute(name, fresh.getAttribute(name));
    }
    updateChildren(shown, fresh);
  }

  function updateChildren(shown, fresh) {
    const ids = new Set([...fresh.children].map((child) => child.id));
    for (const child of [...shown.children]) if (child.id && !ids.has(child.id)) child.remove();
    let next = shown.firstChild;
    for (const child of [...fresh.childNodes]) {
      if (next && isSame(next, child)) {
        update(next, child);
        next = next.nextSibling;
      } else {
        const added = document.adoptNode(child);
        shown.insertBefore(added, next);
        if (added.nodeType === Node.ELEMENT_NODE) htmx.process(added);
      }
    }
    while (next) {
      const following = next.nextSibling;
      next.remove();
      next = following;
    }
  }

  async function refresh(url) {
    const query = document.getElementById("job-events").dataset.query;
    // A redirect leads to the login page, because the session is over.
    const answer = await fetch(`${url}?${query}`, { redirect: "manual" });
    if (answer.type === "opaqueredirect") window.location.reload();
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of PARTS) {
      const [shown, part] = [document.getElementById(id), fresh.getElementById(id)];
      // Other events may have been chosen meanwhile.
      if (shown && part && shown.dataset.query === part.dataset.query) update(shown, part);
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    const page = document.getElementById("content-main");
    if (!page?.dataset.refresh) return;
    const schedule = () => {
      if (PARTS.some((id) => "unfinished" in document.getElementById(id).dataset)) setTimeout(look, Number(page.dataset.pause) * 1000);
    };
    const look = async () => {
      if (!document.hidden) await refresh(page.dataset.refresh).catch(() => {}); // the service does not answer: try again later
      schedule();
    };
    schedule();
  });

  // If the session has ended, htmx gets the login page in place of the events.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, serverResponse } = event.detail;
    if (target.id === "job-events" && !serverResponse.includes('id="job-events"')) {
      event.detail.shouldSwap = false;
      window.location.reload();
    }
  });
})();
