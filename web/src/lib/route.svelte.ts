// The view by the location's hash: #/ and #/c/ID (chat), #/inside, #/training.
export const route = $state({ view: 'chat' as 'chat' | 'inside' | 'training', chat: '' });

function read() {
  const parts = location.hash.replace(/^#\/?/, '').split('/');
  route.view = parts[0] === 'inside' || parts[0] === 'training' ? parts[0] : 'chat';
  route.chat = parts[0] === 'c' ? decodeURIComponent(parts[1] ?? '') : '';
}
read();
addEventListener('hashchange', read);

export function go(hash: string, replace = false) {
  if (replace) history.replaceState(null, '', hash);
  else if (location.hash !== hash) history.pushState(null, '', hash);
  read();
}
addEventListener('popstate', read);
