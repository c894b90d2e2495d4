// Making elements. Text only ever becomes a text node: what was recorded, and what others
// named their hosts and commands, can be anything.

type Child = Node | string | number | null | undefined | false;
type Props = { class?: string; title?: string; on?: Record<string, (e: any) => void>; [attr: string]: unknown };

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props | null, ...children: Child[]): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, fn] of Object.entries(value as Record<string, EventListener>)) el.addEventListener(event, fn);
    } else {
      el.setAttribute(name, value === true ? "" : String(value));
    }
  }
  add(el, ...children);
  return el;
}

export function add(el: Node, ...children: Child[]): void {
  for (const c of children) {
    if (c === null || c === undefined || c === false) continue;
    el.appendChild(c instanceof Node ? c : document.createTextNode(String(c)));
  }
}

export function replace(el: Element, ...children: Child[]): void {
  el.replaceChildren();
  add(el, ...children);
}
