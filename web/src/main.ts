import { mount } from 'svelte';
import 'katex/dist/katex.min.css';
import 'uplot/dist/uPlot.min.css';
import './app.css';
import App from './App.svelte';
import { connect } from './lib/server.svelte';
import { refresh } from './lib/chats.svelte';

void connect();
void refresh();
mount(App, { target: document.getElementById('app')! });
