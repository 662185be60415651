// A plug-in of typedoc. The fields of messages are described in docs/protocol.md, from the same table as the types, and a test
// sees to it; so here they refer to it. Everything else that is exported has to have a text of its own.
import { Comment, Converter, ReflectionKind } from 'typedoc';

const tables = /\/libtlspool\/src\/protocol\/(bodies|requests|messages|errors|table)\.ts$/;

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    for (const reflection of project.getReflectionsByKind(ReflectionKind.Property)) {
      const isField = reflection.parent?.kindOf(ReflectionKind.TypeLiteral) === true;
      const file = project.getSymbolIdFromReflection(reflection)?.fileName ?? '';
      if (!isField || reflection.hasComment() || !tables.test(file)) continue;
      reflection.comment = new Comment([{ kind: 'text', text: 'See docs/protocol.md.' }]);
    }
  });
}
