// node own.mjs URL ROOM: the story with the WebSocket that Node has.
import { story } from "./story.mjs"

console.log(await story(WebSocket, process.argv[2], process.argv[3]))
