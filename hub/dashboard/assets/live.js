// Keeps the page up to date: puts the parts that the hub sends in the place of
// those that are there. What has not changed stays as it is, with its focus,
// selection and scroll position.
(() => {
  "use strict";

  function adapt(old, now) {
    if (old.isEqualNode(now)) return;
    if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || (old.id || "") !== (now.id || "")) {
      old.replaceWith(now);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = now.nodeValue;
      return;
    }
    for (const name of old.getAttributeNames()) {
      if (!now.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    children(old, now);
  }

  function children(old, now) {
    const end = old.dataset.follow !== undefined && old.scrollTop + old.clientHeight >= old.scrollHeight - 4;
    const want = [...now.childNodes];
    const ids = new Set(want.map((node) => node.id).filter(Boolean));
    for (const node of [...old.childNodes]) {
      if (node.id && !ids.has(node.id)) node.remove();
    }
    want.forEach((node, i) => {
      const there = old.childNodes[i];
      const same = node.id && [...old.children].find((child) => child.id === node.id);
      if (!there) old.append(node);
      else if (same && same !== there) {
        old.insertBefore(same, there);
        adapt(same, node);
      } else if (node.id && !same) old.insertBefore(node, there);
      else adapt(there, node);
    });
    while (old.childNodes.length > want.length) old.lastChild.remove();
    if (end) old.scrollTop = old.scrollHeight;
  }

  let source;
  const button = document.getElementById("live");

  function start() {
    source = new EventSource("/live?page=" + encodeURIComponent(location.pathname + location.search));
    source.addEventListener("part", (event) => {
      const at = event.data.indexOf("\n");
      const old = document.getElementById(event.data.slice(0, at));
      const now = document.createElement("template");
      now.innerHTML = event.data.slice(at + 1);
      if (old) children(old, now.content);
    });
    source.addEventListener("reload", () => location.reload());
    source.onopen = () => button.removeAttribute("data-lost");
    source.onerror = () => {
      button.dataset.lost = "";
      // It does not come back by itself after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source.readyState === EventSource.CLOSED && start(), 5000);
    };
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!on));
    if (on) source.close();
    else start();
  });
  start();
})();
