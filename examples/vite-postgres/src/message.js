export const message = 'Hello from main'
