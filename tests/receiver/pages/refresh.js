// Refreshes <main> where it stands, and says when the receiver is away.
"use strict";
const away = document.getElementById("away");
const pause = 1000 * document.body.dataset.refresh;

async function fetchPage() {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), 20000);
  try {
    const reply = await fetch(location.href, {
      cache: "no-store", headers: {Accept: "text/html"}, signal: control.signal});
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    if (!page.querySelector("main")) throw new Error("no page of ours");
    return page;
  } finally {
    clearTimeout(timer);
  }
}

function show(page) {
  const main = document.querySelector("main"), fresh = page.querySelector("main");
  if (!getSelection().isCollapsed || main.innerHTML === fresh.innerHTML) return;
  const focused = main.contains(document.activeElement) ? document.activeElement : null;
  const {scrollX, scrollY} = window;
  const details = fresh.querySelectorAll("details");
  main.querySelectorAll("details").forEach((old, index) => {
    if (details[index]) details[index].open = old.open;
  });
  main.replaceChildren(...fresh.childNodes);
  document.title = page.title;
  if (focused) {
    const same = [...main.querySelectorAll(focused.tagName)].find(element =>
      element.getAttribute("href") === focused.getAttribute("href") &&
      element.tabIndex === focused.tabIndex);
    if (same) same.focus({preventScroll: true});
  }
  scrollTo(scrollX, scrollY);
}

async function refresh() {
  try {
    show(await fetchPage());
    away.hidden = true;
  } catch (error) {
    if (away.hidden) {
      away.textContent = `not reached since ${new Date().toTimeString().slice(0, 5)}`;
      away.hidden = false;
    }
  }
  setTimeout(refresh, pause);
}
setTimeout(refresh, pause);
