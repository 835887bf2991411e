// What the theme leaves to do for Mermaid's drawings: arrow heads and activations in the colours of the scheme, and on phones a width that can be read
// (drawings scroll then). The theme calls `initialize` and `render`; both are its own otherwise.
;(() => {
  const initialize = mermaid.initialize.bind(mermaid)
  const render = mermaid.render.bind(mermaid)
  const css = `
    defs marker path, defs marker polygon, defs marker circle { fill: var(--md-mermaid-edge-color) !important; stroke: var(--md-mermaid-edge-color) !important }
    rect[class^="activation"] { fill: var(--md-mermaid-node-bg-color) !important; stroke: var(--md-mermaid-node-fg-color) !important }
  `
  mermaid.initialize = (config) => initialize({ ...config, themeCSS: `${config.themeCSS ?? ""}${css}` })
  mermaid.render = async (...given) => {
    const made = await render(...given)
    return { ...made, svg: made.svg.replace(/max-width: ([\d.]+)px/, "max-width: $1px; min-width: min($1px, 36rem)") }
  }
})()
