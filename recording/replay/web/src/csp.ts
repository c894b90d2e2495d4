// The page is served with a policy that allows no inline style. The terminal renderer makes
// <style> elements and style attributes; here both become calls into the CSS object model,
// which the policy allows, so that the policy need not be loosened for the renderer's sake.

export function adoptStyles(): void {
  const create = document.createElement.bind(document);
  document.createElement = ((tag: string, options?: ElementCreationOptions) => {
    return tag === "style" ? adopted() : create(tag, options);
  }) as typeof document.createElement;

  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name: string, value: string) {
    if (name === "style" && this instanceof HTMLElement) {
      this.style.cssText = value;
      return;
    }
    set.call(this, name, value);
  };
}

// adopted gives what behaves like a style element where it matters: its text goes into a
// constructed sheet of the document, until it is removed. The element itself is inert, because
// a <style> is refused even while it is empty.
function adopted(): HTMLElement {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  const el = document.createElement("template");
  let text = "";
  const content = {
    get: () => text,
    set: (value: string) => {
      text = value;
      sheet.replaceSync(value);
    },
  };
  Object.defineProperty(el, "textContent", content);
  Object.defineProperty(el, "innerText", content);
  el.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
    Element.prototype.remove.call(el);
  };
  return el;
}
