// The least that a worker in Node does with an item that costs nothing: it
// parses the frame and sends a result, over the WebSocket library that the Node
// worker uses. It stages nothing, routes nothing, and keeps no result anywhere.
import { createRequire } from 'node:module';

const WebSocket = createRequire(process.env.BEACON_BENCH_NODE_MODULES + '/')('ws');
const socket = new WebSocket(process.argv[2]);
const send = (message) => socket.send(JSON.stringify(message));
socket.on('open', () => send({ Action: 'BeaconRegister', Name: 'n', Capabilities: ['Test'], MaxConcurrent: 16, Tags: {} }));
socket.on('message', (data) => {
	const message = JSON.parse(data.toString());
	if (message.EventType === 'WorkItem') {
		const item = message.WorkItem;
		send({ Action: 'WorkComplete', WorkItemHash: item.WorkItemHash, Outputs: { Result: item.WorkItemHash }, Log: [] });
	}
});
process.stdin.on('data', () => {}).on('end', () => process.exit(0));
