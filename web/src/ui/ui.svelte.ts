// Which dialog is open, and whether the sidebar covers the page (phones).
export const ui = $state({
  dialog: '' as '' | 'settings' | 'parameters' | 'shortcuts',
  drawer: false,
  jump: '', // message to be shown: a hit of the search
});

// The chat page says here what keyboard shortcuts do.
export const actions = {
  focusInput: () => {},
  stop: () => false as boolean,
  regenerate: () => {},
  copyLast: () => {},
  editLast: () => {},
  focusSearch: () => {},
};

export const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
export const mod = isMac ? '⌘' : 'Ctrl';
