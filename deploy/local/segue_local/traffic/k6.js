// One POST (or GET) at a constant rate; one JSON line for each request on the console.
import http from "k6/http";
import load from "k6/x/load";

const config = JSON.parse(__ENV.SEGUE_LOAD);

export const options = {
  scenarios: {
    load: {
      executor: "constant-arrival-rate",
      rate: config.rate,
      timeUnit: "1s",
      duration: `${config.longest_s}s`,
      preAllocatedVUs: config.users,
      gracefulStop: `${config.timeout_s + 1}s`,
    },
  },
  noConnectionReuse: !config.keep_alive,
  maxRedirects: 0,
  systemTags: [],
  summaryTrendStats: [],
};

// Runs when all is prepared and the load begins.
export function setup() {
  say({ began: load.now() });
}

export default function () {
  if (!load.enter()) return;
  const at = load.now();
  const reply = http.request(config.method, config.url, config.body, {
    headers: config.headers,
    timeout: `${config.timeout_s}s`,
  });
  const latency_s = load.now() - at;
  say({ at, latency_s, status: reply.status, error: reply.error, version: version(reply) });
  load.leave();
}

export function handleSummary({ metrics }) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const summary = { sent: count("http_reqs"), dropped: count("dropped_iterations") };
  return { [config.summary]: JSON.stringify(summary) };
}

function say(line) {
  console.log(JSON.stringify(line));
}

function version(reply) {
  try {
    return String(reply.json(config.version_path) ?? "");
  } catch {
    return ""; // no JSON: an error page, a cut reply
  }
}
