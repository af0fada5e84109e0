import pg from 'pg'

// Notes in PostgreSQL. Where that is, DATABASE_URL says: see dual.yaml.
export function openNotes(options = {}) {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, ...options })
  // An idle connection broke, as when the database restarts. The next query opens another one.
  pool.on('error', (error) => console.error(`notes: ${error.message}`))

  let table
  async function query(text, values) {
    table ??= pool.query(
      'CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)',
    )
    try {
      await table
    } catch (error) {
      table = undefined // to be tried again
      throw error
    }
    return (await pool.query(text, values)).rows
  }

  return {
    all: () => query('SELECT id, text FROM notes ORDER BY id'),
    add: async (text) => {
      const [note] = await query('INSERT INTO notes (text) VALUES ($1) RETURNING id, text', [text])
      return note
    },
    close: () => pool.end(),
  }
}
