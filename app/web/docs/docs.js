"use strict";
// The address of this page is that of the server, also below the prefix of a proxy.
fetch("openapi.json").then((answer) => answer.json()).then((spec) => {
  spec.servers = [{ url: new URL(".", location.href).href.replace(/\/$/, "") }];
  SwaggerUIBundle({ spec, dom_id: "#docs", deepLinking: true });
});
