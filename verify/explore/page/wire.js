// The wire: what is asked of the server, all of it relative to the page's own secret address.

async function json(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

export const about = () => json("about");
export const inputs = (start) => json(`inputs?start=${start}`);

/** A name of this page: the server computes one thing at a time for it. */
export const client = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
  byte.toString(16).padStart(2, "0")).join("");

/**
 * Ask, and call `told(name, data)` for each event of the answer.
 * Ends when the answer does, or when the signal says so.
 */
export async function ask(question, told, signal) {
  const answer = await fetch("ask", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ client, ...question }),
    signal,
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const found = /^event: (\w+)\ndata: (.*)$/.exec(event);
      if (found && !signal.aborted) told(found[1], JSON.parse(found[2]));
    }
  }
}
