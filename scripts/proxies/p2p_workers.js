// Usage: node p2p_workers.js HUB_PORT WORKER_PORT_0,WORKER_PORT_1,...
// Registers workers that are there already, as the article's tf_classify_server.js registers its own.
const hub = require('seaport').connect(Number(process.argv[2]))
for (const port of process.argv[3].split(',')) hub.register('tf_classify_server', { port: Number(port) })
