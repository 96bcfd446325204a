// node ws.mjs URL ROOM: the story with npm's `ws`.
import WebSocket from "ws"
import { story } from "./story.mjs"

console.log(await story(WebSocket, process.argv[2], process.argv[3]))
