// Where the view of one user is: part of the page's address, so that it can be
// linked to and survives a reload. Servers never see it.
export const userLink = (openid: string) => `#user=${encodeURIComponent(openid)}`;

export function linkedUser(hash: string): string {
  const name = hash.match(/^#user=(.*)$/)?.[1] ?? '';
  try {
    return decodeURIComponent(name);
  } catch {
    return ''; // somebody typed it
  }
}
