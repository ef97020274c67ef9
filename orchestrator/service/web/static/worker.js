// One connection for all tabs: a browser opens only six per host.

import { Feed } from "./feed.js";

const ports = new Set();
const feed = new Feed((message) => {
  for (const port of ports) port.postMessage(message);
});

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.bye) {
      ports.delete(port);
      if (!ports.size) feed.stop?.();
      return;
    }
    ports.add(port);
    feed.start(data.at);
    if (feed.state) port.postMessage(feed.state);
    port.postMessage({ at: feed.at });
  };
};
