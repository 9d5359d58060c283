// Usage: node http_proxy.js PORT WORKER_PORT_0,WORKER_PORT_1,... [keep-alive]
// The article's basic_proxy.js with its own port as an argument; `keep-alive`: with an agent that keeps connections to the
// workers, and the headers that say where a request came from.
const http = require('http')
const worker_ports = process.argv[3].split(',')
const kept = process.argv[4] === 'keep-alive' ? { agent: new http.Agent({ keepAlive: true }), xfwd: true } : {}
const proxy = require('http-proxy').createProxyServer(kept)
proxy.on('error', () => console.log('proxy error'))

let i = 0
http.createServer((req, res) => {
  proxy.web(req, res, { target: 'http://localhost:' + worker_ports[(i++) % worker_ports.length] })
}).listen(Number(process.argv[2]), '127.0.0.1')
