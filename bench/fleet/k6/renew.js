// Each virtual user renews a Lease of its own over a connection of its own, as fast as it is answered.
import http from 'k6/http';

export const options = {
  vus: Number(__ENV.CONNECTIONS),
  duration: `${__ENV.SECONDS}s`,
  tlsAuth: [{ cert: open(__ENV.CERTIFICATE), key: open(__ENV.KEY) }],
};

const versionOf = (text) => /"resourceVersion":"(\d+)"/.exec(text)[1];
const owners = __ENV.OWNERS.split(',');
let version = '';

export default function () {
  const name = `${__ENV.PREFIX}${String(__VU - 1).padStart(5, '0')}`;
  const url = `${__ENV.SERVER}${__ENV.LEASES}/${name}`;
  if (!version) {
    version = versionOf(http.get(url).body);
  }
  const body = __ENV.BODY.replaceAll('NAME', name)
    .replace('OWNER', owners[__VU - 1])
    .replace('VERSION', version)
    .replace('MOMENT', new Date().toISOString().replace('Z', '000Z'));
  const answer = http.put(url, body, { headers: { 'Content-Type': 'application/json' } });
  version = answer.status === 200 ? versionOf(answer.body) : '';
}
