import { message } from './message.js'

const heading = document.querySelector('h1')
const form = document.querySelector('form')
const list = document.querySelector('ul')

heading.textContent = message

// Edit message.js and save it: the page shows it, and keeps what is typed into the form.
import.meta.hot?.accept('./message.js', (changed) => {
  heading.textContent = changed.message
})

async function showNotes() {
  const notes = await (await fetch('/api/notes')).json()
  list.replaceChildren(
    ...notes.map(({ text }) => {
      const item = document.createElement('li')
      item.textContent = text
      return item
    }),
  )
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const note = Object.fromEntries(new FormData(form))
  await fetch('/api/notes', { method: 'POST', body: JSON.stringify(note) })
  form.reset()
  await showNotes()
})

await showNotes()
