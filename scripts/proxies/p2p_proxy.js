// Usage: node p2p_proxy.js PORT HUB_PORT
// The article's p2p_proxy.js with its ports as arguments.
const seaportServer = require('seaport').createServer()
seaportServer.listen(Number(process.argv[3]))

let i = 0
require('http').createServer((req, res) => {
  seaportServer.get('tf_classify_server', worker_ports => {
    const this_port = worker_ports[(i++) % worker_ports.length].port
    res.end(`${this_port}\n`)
  })
}).listen(Number(process.argv[2]), '127.0.0.1')
