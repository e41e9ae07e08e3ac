import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';
import { oneFile } from './scripts/one_file.ts';

export default defineConfig({
  plugins: [svelte(), oneFile()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 1 << 24,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
  },
  // `npm run dev` with a server beside it: WELS_URL=http://127.0.0.1:8080 npm run dev
  server: process.env.WELS_URL
    ? { proxy: Object.fromEntries(['/ui', '/chat', '/beta', '/models'].map((p) => [p, process.env.WELS_URL!])) }
    : undefined,
});
