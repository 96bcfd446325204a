// node undici.mjs URL ROOM: the story with npm's `undici`.
import { WebSocket } from "undici"
import { story } from "./story.mjs"

console.log(await story(WebSocket, process.argv[2], process.argv[3]))
