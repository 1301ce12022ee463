/*
The engineer's phone: drafts are kept in the browser under their own person's number, sent once each under a key of
their own, and wiped with the kept pages at sign-out; what somebody else left on this phone stays theirs. Without this script every form of these pages still works.

A form with data-draft is always kept first and then sent; one with data-draft-offline only while there is no network.
*/
"use strict";

(() => {
  const OWNER = document.querySelector('meta[name="field-owner"]')?.content ?? "";
  const words = document.getElementById("field-words")?.dataset ?? {};
  const DATABASE = "raseed-field";
  const LONGEST_SIDE = 1600; // as the server keeps them: a smaller picture is sooner sent
  const SAME_TAP_MS = 1000; // a second tap within it is the same tap of a thumb with gloves
  const OLD_MS = 30 * 24 * 3600 * 1000; // the server takes none that waited longer
  if (!OWNER || !("indexedDB" in window)) return;
  document.getElementById("draft-no-script")?.remove();

  /* --- the drafts of this phone ----------------------------------------------------------------- */
  const open = () => new Promise((resolve, reject) => {
    const asked = indexedDB.open(DATABASE, 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("drafts", { keyPath: "key" }).createIndex("owner", "owner");
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });

  const run = async (mode, work) => {
    const database = await open();
    try {
      return await new Promise((resolve, reject) => {
        const step = database.transaction("drafts", mode);
        const asked = work(step.objectStore("drafts"));
        step.oncomplete = () => resolve(asked?.result);
        step.onerror = step.onabort = () => reject(step.error);
      });
    } finally {
      database.close();
    }
  };

  const keep = (draft) => run("readwrite", (store) => store.put(draft));
  const forget = (key) => run("readwrite", (store) => store.delete(key));
  const mine = async () => {
    const found = await run("readonly", (store) => store.index("owner").getAll(OWNER));
    return found.sort((a, b) => (a.made_at < b.made_at ? -1 : 1));
  };
  const wipe = async () => {
    for (const draft of await mine()) await forget(draft.key); // nobody else's: they wait for their person
    for (const name of await caches.keys()) if (name.startsWith("raseed-field-pages")) await caches.delete(name);
  };

  /* --- sending ----------------------------------------------------------------------------------- */
  const whoAmI = async () => {
    const answer = await fetch("/field/me", { headers: { Accept: "application/json" }, redirect: "manual", cache: "no-store" });
    return answer.ok ? answer.json() : null;
  };

  const post = async (draft, csrf) => {
    const body = new FormData();
    body.set("form_key", draft.key);
    body.set("kind", draft.kind);
    body.set("drn", draft.drn);
    body.set("made_at", draft.made_at);
    for (const [name, value] of Object.entries(draft.fields)) body.set(name, value);
    if (draft.photo) body.set("photo", draft.photo, "photo.jpg");
    return fetch("/field/drafts", {
      method: "POST", body, redirect: "manual", headers: { Accept: "application/json", "X-CSRF-Token": csrf },
    });
  };

  // One sender at a time, whatever tabs are open: two would still change nothing twice, but would say so twice.
  const sendAll = (only) => navigator.locks.request("raseed-field-send", async () => {
    const told = { taken: [], refused: [], waiting: 0, signedOut: false };
    const person = await whoAmI().catch(() => undefined);
    if (person === undefined) told.waiting = (await mine()).length;
    else if (person === null || person.login !== OWNER) told.signedOut = true;
    else {
      for (const draft of await mine()) {
        if (only && draft.key !== only) continue;
        if (!only && draft.state === "refused") continue; // a person decides first
        const answer = await post(draft, person.csrf).catch(() => null);
        const is_json = (answer?.headers.get("content-type") ?? "").startsWith("application/json");
        if (answer?.ok && is_json) {
          told.taken.push({ ...draft, answer: await answer.json() });
          await forget(draft.key);
        } else if (answer?.status === 422 && is_json) {
          draft.state = "refused";
          draft.words = (await answer.json()).text;
          await keep(draft);
          told.refused.push(draft);
        } else {
          told.waiting += 1; // no network, or a server that is busy: later
          if (answer === null) break;
        }
      }
    }
    await show();
    return told;
  });

  /* --- what the page shows -------------------------------------------------------------------------- */
  const show = async () => {
    const drafts = await mine();
    const offline = !navigator.onLine;
    const bar = document.getElementById("phone-bar");
    document.getElementById("phone-offline").hidden = !offline;
    document.getElementById("phone-waiting").hidden = drafts.length === 0;
    document.getElementById("phone-count").textContent = String(drafts.length);
    bar.hidden = !offline && drafts.length === 0;
    const list = document.getElementById("draft-list");
    if (list) list.replaceChildren(...(drafts.length ? drafts.map(row) : [emptyRow()]));
    const send = document.getElementById("draft-send");
    if (send) send.hidden = drafts.length === 0;
  };

  const emptyRow = () => {
    const line = document.createElement("li");
    line.className = "empty";
    line.textContent = words.none;
    return line;
  };

  const row = (draft) => {
    const line = document.getElementById("draft-row").content.firstElementChild.cloneNode(true);
    const part = (name) => line.querySelector(`[data-part="${name}"]`);
    part("kind").textContent = words[draft.kind] ?? draft.kind;
    part("drn").textContent = draft.drn;
    part("what").textContent = draft.summary;
    part("when").textContent = new Date(draft.made_at).toLocaleString(document.documentElement.lang === "ar" ? "ar-OM-u-nu-latn" : "en-GB", { dateStyle: "medium", timeStyle: "short" });
    part("when").dateTime = draft.made_at;
    const refused = draft.state === "refused";
    line.classList.add(refused ? "is-bad" : "is-warn");
    part("waiting").hidden = refused;
    part("refused").hidden = !refused;
    part("words").textContent = draft.words ?? "";
    part("words").hidden = !refused;
    part("retry").addEventListener("click", () => sendAll(draft.key).then(say));
    part("delete").addEventListener("click", () => forget(draft.key).then(show));
    return line;
  };

  const say = (told) => {
    const place = document.getElementById("draft-said");
    if (!place) return;
    place.hidden = false;
    place.className = told.signedOut || told.waiting ? "notice notice-warn" : told.refused.length ? "notice notice-error" : "notice notice-ok";
    if (told.signedOut) place.textContent = words.signedOut;
    else if (told.refused.length) place.textContent = told.refused[0].words;
    else if (told.waiting) place.textContent = words.stillWaiting;
    else place.textContent = [words.sent, ...told.taken.map((draft) => draft.answer.text)].join(" ");
  };

  /* --- forms ------------------------------------------------------------------------------------------ */
  const smaller = async (file) => {
    try {
      const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
      const part = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(picture.width * part);
      canvas.height = Math.round(picture.height * part);
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      return await new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.85));
    } catch {
      return file; // the server says what is wrong with it
    }
  };

  const OWN_FIELDS = new Set(["csrf_token", "form_key", "kind", "drn", "photo", "back"]);
  const draftOf = async (form, button) => {
    const data = new FormData(form, button);
    const fields = {};
    for (const [name, value] of data.entries()) if (!OWN_FIELDS.has(name) && typeof value === "string") fields[name] = value;
    const file = data.get("photo");
    const photo = file instanceof File && file.size ? await smaller(file) : null;
    const said = [...form.querySelectorAll("select, input:checked, textarea, input[data-said]")]
      .concat(button?.name ? [button] : [])
      .map((input) => input.tagName === "BUTTON" ? input.textContent : input.tagName === "SELECT" ? input.selectedOptions[0]?.textContent : input.type === "radio" ? input.closest("label")?.textContent : input.value)
      .map((text) => (text ?? "").replace(/\s+/g, " ").trim()).filter(Boolean);
    return {
      key: crypto.randomUUID(), owner: OWNER, kind: data.get("kind"), drn: String(data.get("drn") ?? "").trim(),
      fields, photo, made_at: new Date().toISOString(), state: "waiting", summary: said.join(" · ").slice(0, 160),
    };
  };

  const submitDraft = async (form, button) => {
    const place = form.querySelector(".draft-answer");
    const tell = (text, tone) => {
      if (!place) return;
      place.hidden = false;
      place.className = `draft-answer notice notice-${tone}`;
      place.textContent = text;
    };
    const making = draftOf(form, button); // reads the form before its button is shut
    if (button) button.disabled = true;
    const draft = await making;
    await keep(draft);
    tell(words.kept, "info");
    form.reset();
    await show();
    // Not waited for: on a bad line the next entry need not wait until this one is sent.
    if (navigator.onLine) sendAll(draft.key).then((told) => {
      if (told.signedOut) tell(words.signedOut, "warn");
      else if (told.refused.length) tell(told.refused[0].words, "error");
      else if (told.taken.length) tell(told.taken[0].answer.text, "ok");
      else tell(words.kept, "info");
    });
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    const is_draft = form.hasAttribute("data-draft") || (form.hasAttribute("data-draft-offline") && !navigator.onLine);
    if (!is_draft || event.defaultPrevented) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = "1";
    const begun = Date.now();
    submitDraft(form, event.submitter).finally(() => setTimeout(() => {
      delete form.dataset.busy;
      if (event.submitter) event.submitter.disabled = false;
    }, Math.max(0, SAME_TAP_MS - (Date.now() - begun))));
  });

  /* --- leaving ------------------------------------------------------------------------------------------- */
  const signOut = document.querySelector('form[action="/sign-out"]');
  const leave = document.getElementById("leave");
  const goOut = async () => {
    await wipe().catch(() => {}); // a browser that lost its storage keeps nobody from signing out
    signOut.submit();
  };
  signOut?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const waiting = await mine().catch(() => []);
    if (waiting.length > 0) leave.showModal();
    else await goOut();
  });
  document.getElementById("leave-stay")?.addEventListener("click", () => leave.close());
  document.getElementById("leave-anyway")?.addEventListener("click", goOut);

  /* --- begin ------------------------------------------------------------------------------------------------ */
  const sweepOld = async () => {
    const all = await run("readonly", (store) => store.getAll());
    for (const draft of all) if (Date.now() - Date.parse(draft.made_at) > OLD_MS && draft.owner !== OWNER) await forget(draft.key);
  };
  addEventListener("online", () => { show(); sendAll().then(say); });
  addEventListener("offline", show);
  document.getElementById("draft-send")?.addEventListener("click", () => {
    const place = document.getElementById("draft-said");
    place.hidden = false;
    place.className = "notice notice-info";
    place.textContent = words.sending;
    sendAll().then(say);
  });
  show().then(sweepOld).then(async () => {
    if (navigator.onLine && (await mine()).some((draft) => draft.state === "waiting")) say(await sendAll());
  });

  if ("serviceWorker" in navigator && location.pathname.startsWith("/field")) {
    navigator.serviceWorker.register("/field/worker.js", { scope: "/field" }).catch(() => {});
    navigator.serviceWorker.ready.then((ready) => { if (navigator.onLine) ready.active?.postMessage({ type: "first-pages", owner: OWNER }); });
  }
})();
