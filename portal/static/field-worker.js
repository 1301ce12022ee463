/*
The engineer's pages without a network. BUILD, SHELL and FIRST_PAGES stand before this text (portal/pages/field_offline.py).
Pages come from the network; what the server marks as keepable is kept for its person and shown when the network is away.
Nothing is ever sent from here: drafts are sent by the page, once each.
*/
"use strict";

const SHELL_CACHE = `raseed-field-shell-${BUILD}`;
const PAGES = "raseed-field-pages-";
const KEEP = "X-Raseed-Keep";
const MOST_PAGES = 60; // a day's meters; the oldest goes first
const PATIENCE_MS = 6000; // a page that takes longer on a bad line is shown as it was last
const FIRST_AGE_MS = 60000;
let firstPagesAt = 0;

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(SHELL_CACHE).then((cache) => cache.addAll(SHELL)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys())
      if (name.startsWith("raseed-field-shell-") && name !== SHELL_CACHE) await caches.delete(name);
    await self.clients.claim();
  })());
});

self.addEventListener("message", (event) => {
  if (event.data?.type !== "first-pages" || Date.now() - firstPagesAt < FIRST_AGE_MS) return;
  firstPagesAt = Date.now();
  event.waitUntil(Promise.all(FIRST_PAGES.map((path) => fetch(path, { redirect: "manual" }).then((answer) => keep(path, answer)).catch(() => {}))));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const address = new URL(request.url);
  if (request.method !== "GET" || address.origin !== self.location.origin) return;
  if (address.pathname.startsWith("/static/")) event.respondWith(fromShell(request));
  else if (request.mode === "navigate" && address.pathname.startsWith("/field")) event.respondWith(pageOf(event, request, address));
});

async function fromShell(request) {
  return (await caches.match(request)) ?? fetch(request);
}

async function pageOf(event, request, address) {
  const patience = new AbortController();
  const kept = await keptPage(address);
  const timer = kept ? setTimeout(() => patience.abort(), PATIENCE_MS) : 0;
  try {
    const answer = await fetch(request, { signal: patience.signal });
    if (answer.type === "opaqueredirect") event.waitUntil(forgetWhenSignedOut());
    else event.waitUntil(keep(address.pathname + address.search, answer.clone()));
    return answer;
  } catch {
    return kept ?? (await keptPage(new URL("/field/offline", self.location.origin))) ?? Response.error();
  } finally {
    clearTimeout(timer);
  }
}

async function keptPage(address) {
  for (const name of await caches.keys()) {
    if (!name.startsWith(PAGES)) continue;
    const cache = await caches.open(name);
    const found = (await cache.match(address.pathname + address.search)) ?? (await cache.match(address.pathname, { ignoreSearch: true }));
    if (found) return found;
  }
  return undefined;
}

async function keep(path, answer) {
  const owner = answer.ok ? answer.headers.get(KEEP) : null;
  if (!owner) return;
  for (const name of await caches.keys()) if (name.startsWith(PAGES) && name !== PAGES + owner) await caches.delete(name);
  const cache = await caches.open(PAGES + owner);
  await cache.delete(path); // so that it is the newest in the row
  await cache.put(path, answer);
  const rows = await cache.keys();
  for (const row of rows.slice(0, Math.max(0, rows.length - MOST_PAGES))) await cache.delete(row);
}

async function forgetWhenSignedOut() {
  const answer = await fetch("/field/me", { redirect: "manual", cache: "no-store" }).catch(() => null);
  if (answer?.type !== "opaqueredirect") return;
  for (const name of await caches.keys()) if (name.startsWith(PAGES)) await caches.delete(name);
}
