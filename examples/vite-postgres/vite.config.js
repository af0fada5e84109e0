import { defineConfig } from 'vite'
import { notesApi } from './server/api.js'

export default defineConfig({
  plugins: [notesApi()],
  server: {
    host: '0.0.0.0', // the proxy comes from outside this workspace's localhost
    port: 3000,
    strictPort: true, // the next free port is not where the proxy asks
    // Vite allows hosts under .localhost by itself, and its client in the browser opens its
    // WebSocket where the page came from. So hot reload works through the proxy as it is.
  },
})
