import { afterAll, expect, test } from 'vitest'
import { openNotes } from '../server/notes.js'

// Temporary tables belong to one connection, so the notes of the page are left alone.
const notes = openNotes({ max: 1, options: '-c search_path=pg_temp' })
afterAll(notes.close)

test('a note comes back', async () => {
  const note = await notes.add('milk')
  expect(await notes.all()).toEqual([note])
})

const seconds = Number(process.env.SOAK_SECONDS ?? 60)

test(`notes come back in order, for ${seconds} s`, { timeout: (seconds + 10) * 1000 }, async () => {
  const end = Date.now() + seconds * 1000
  while (Date.now() < end) {
    const note = await notes.add(`at ${Date.now()}`)
    expect((await notes.all()).at(-1)).toEqual(note)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
})
