// SPDX-License-Identifier: Apache-2.0
//
// Runs a passkey ceremony: reads its options from the form, asks the browser,
// and sends what it says back with the form. Everything else on these pages
// works without scripts.
"use strict";

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const named = (list) => (list || []).map((entry) => ({ ...entry, id: bytes(entry.id) }));

async function ceremony(form) {
  const key = JSON.parse(form.dataset.options).publicKey;
  key.challenge = bytes(key.challenge);
  let answer;
  const credential = { type: "public-key", clientExtensionResults: {} };
  if (form.dataset.step === "register") {
    key.user.id = bytes(key.user.id);
    key.excludeCredentials = named(key.excludeCredentials);
    answer = await navigator.credentials.create({ publicKey: key });
    credential.response = { attestationObject: text(answer.response.attestationObject), transports: answer.response.getTransports?.() || [] };
  } else {
    key.allowCredentials = named(key.allowCredentials);
    answer = await navigator.credentials.get({ publicKey: key });
    credential.response = { authenticatorData: text(answer.response.authenticatorData), signature: text(answer.response.signature) };
    if (answer.response.userHandle) credential.response.userHandle = text(answer.response.userHandle);
  }
  credential.id = answer.id;
  credential.rawId = text(answer.rawId);
  credential.response.clientDataJSON = text(answer.response.clientDataJSON);
  credential.clientExtensionResults = answer.getClientExtensionResults();
  form.elements.credential.value = JSON.stringify(credential);
  form.submit();
}

for (const form of document.querySelectorAll("form[data-options]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ceremony(form).catch((problem) => {
      const place = document.getElementById("ceremony");
      place.textContent = "The passkey couldn't be used: " + problem.message;
      place.hidden = false;
    });
  });
}
