import { json } from 'node:stream/consumers'
import { openNotes } from './notes.js'

// A Vite plugin: GET and POST /api/notes on the dev server itself.
export function notesApi() {
  return {
    name: 'notes-api',
    configureServer(server) {
      const notes = openNotes()
      server.httpServer?.once('close', notes.close) // in vitest, there is none

      server.middlewares.use('/api/notes', async (request, response) => {
        const answer = (status, body) => {
          response.writeHead(status, { 'Content-Type': 'application/json' })
          response.end(JSON.stringify(body))
        }
        try {
          if (request.method === 'GET') {
            answer(200, await notes.all())
          } else if (request.method === 'POST') {
            const { text } = await json(request)
            answer(201, await notes.add(String(text)))
          } else {
            answer(405, { error: 'GET or POST' })
          }
        } catch (error) {
          // 503 while the database is still starting: `ready` in dual.yaml waits for it.
          answer(error instanceof SyntaxError ? 400 : 503, { error: error.message })
        }
      })
    },
  }
}
