// The preferences that this browser keeps for the page: the language, and whether single-character shortcuts are on.
// A browser without storage forgets them when the user leaves the page.

export function readPreference(name) {
  try {
    return localStorage.getItem(`sightline.${name}`);
  } catch {
    return null;
  }
}

export function writePreference(name, value) {
  try {
    localStorage.setItem(`sightline.${name}`, value);
  } catch {
    // the page goes on without
  }
}
