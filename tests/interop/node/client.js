// Drive the `socks` package: node client.js '{"command": …, "proxy": …, "destination": …}'
// connect: standard input to the target, its answer to standard output. bind, associate: what happened, as JSON.
'use strict';
const dgram = require('dgram');
const net = require('net');
const { SocksClient } = require('socks');

const options = JSON.parse(process.argv[2]);
const client = new SocksClient(options);
const facts = { bound: null, established: null, heard: [] };

function tell() {
  process.stdout.write(JSON.stringify(facts) + '\n');
}

function connect({ socket }) {
  process.stdin.pipe(socket);
  socket.pipe(process.stdout);
  socket.resume();
}

// This program is the peer of its own BIND as well.
function dialIn({ remoteHost }) {
  facts.bound = remoteHost;
  const peer = net.connect(remoteHost.port, remoteHost.host, () => {
    facts.peer = { host: peer.localAddress, port: peer.localPort };
    peer.write('from the peer');
  });
  peer.on('data', (data) => facts.heard.push(`peer: ${data}`));
  peer.on('end', () => peer.end());
}

function takeIn({ remoteHost, socket }) {
  facts.established = remoteHost;
  socket.on('data', (data) => {
    facts.heard.push(`client: ${data}`);
    socket.end('from the client');
  });
  socket.on('end', tell);
  socket.resume();
}

// Send one datagram to each of `options.sends`, the next one when the answer to the last is there.
function associate({ remoteHost, socket }) {
  facts.established = remoteHost;
  const udp = dgram.createSocket(net.isIPv6(remoteHost.host) ? 'udp6' : 'udp4');
  const sends = [...options.sends];
  const next = () => {
    const target = sends.shift();
    if (target === undefined) {
      tell();
      udp.close();
      socket.end();
      return;
    }
    const frame = SocksClient.createUDPFrame({ remoteHost: target, data: Buffer.from(`to ${target.host}`) });
    udp.send(frame, remoteHost.port, remoteHost.host);
  };
  udp.on('message', (message) => {
    const frame = SocksClient.parseUDPFrame(message);
    facts.heard.push([frame.remoteHost.host, frame.remoteHost.port, frame.data.toString()]);
    next();
  });
  next();
}

client.on('error', (error) => {
  process.stderr.write(error.message + '\n');
  process.exitCode = 1;
  process.stdin.destroy();
});
client.on('bound', dialIn);
client.on('established', { connect, bind: takeIn, associate }[options.command]);
client.connect();
