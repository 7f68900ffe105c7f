/// What an expression of a template gives: a value, or something that only the template itself can use.
enum TemplateResult {
  /// What was not there, in words for messages.
  case undefined(String)
  case data(TemplateValue)
  case namespace(TemplateNamespace)
  case loop(TemplateLoop)
  case macro(TemplateStatement.Macro)
  case function(String)

  static var empty: TemplateResult { .data(.string("")) }
}

/// What `namespace()` gives: attributes that keep what is set in a loop.
final class TemplateNamespace {
  var members: TemplateObject
  init(_ members: TemplateObject) { self.members = members }
}

/// The variable `loop`.
struct TemplateLoop {
  var index: Int
  var elements: [TemplateValue]
}

/// Variables by name, and those around them.
final class TemplateScope {
  private var values: [String: TemplateResult]
  private let parent: TemplateScope?

  init(_ values: [String: TemplateResult] = [:], parent: TemplateScope? = nil) {
    (self.values, self.parent) = (values, parent)
  }

  var isOutermost: Bool { parent == nil }

  subscript(name: String) -> TemplateResult? {
    get { values[name] ?? parent?[name] }
    set { values[name] = newValue }
  }
}

/// Runs the statements of a template, within limits.
struct TemplateEvaluator {
  let limits: ChatTemplate.Limits
  let clock: (@Sendable (String) -> String)?
  /// Macros see these variables and their own parameters.
  let globals: TemplateScope
  private var steps = 0
  private var depth = 0

  init(limits: ChatTemplate.Limits, clock: (@Sendable (String) -> String)?, globals: TemplateScope) {
    (self.limits, self.clock, self.globals) = (limits, clock, globals)
  }

  /// Why a list of statements ended before its end.
  enum Flow { case normal, breakLoop, continueLoop }

  // MARK: Limits

  /// Counts work, so that a template cannot run on: a step for each node, and for what strings and lists are long.
  mutating func charge(_ count: Int, _ offset: Int) throws(TemplateError) {
    steps += count
    if steps > limits.steps {
      throw TemplateError(offset: offset, reason: "the template takes more than \(limits.steps) steps")
    }
  }

  /// A string that was made, when it is not too long.
  mutating func string(_ text: String, _ offset: Int) throws(TemplateError) -> TemplateResult {
    try checkLength(text.utf8.count, offset)
    return .data(.string(text))
  }

  /// For a string of this many bytes, which need not exist yet.
  mutating func checkLength(_ count: Int, _ offset: Int) throws(TemplateError) {
    guard count <= limits.outputBytes else {
      throw TemplateError(offset: offset, reason: "makes a text of more than \(limits.outputBytes) bytes")
    }
    try charge(count / 16, offset)
  }

  mutating func array(_ elements: [TemplateValue], _ offset: Int) throws(TemplateError) -> TemplateResult {
    try charge(elements.count * Self.stepsOfElement, offset)
    return .data(.array(elements))
  }

  /// The memory of lists is limited by what making them costs.
  static let stepsOfElement = 4

  /// A list or object put together from values, which may not become too deep.
  private mutating func nest(_ value: TemplateValue, _ offset: Int) throws(TemplateError) -> TemplateResult {
    guard let count = value.count() else {
      throw TemplateError(
        offset: offset, reason: "makes a value of more than \(TemplateValue.depthLimit) levels of lists and objects")
    }
    try charge(count, offset)
    return .data(value)
  }

  private mutating func descend<R>(
    _ offset: Int, _ body: (inout TemplateEvaluator) throws(TemplateError) -> R
  ) throws(TemplateError) -> R {
    depth += 1
    guard depth <= limits.depth else {
      throw TemplateError(offset: offset, reason: "is evaluated more than \(limits.depth) levels deep")
    }
    try charge(1, offset)
    let result = try body(&self)
    depth -= 1
    return result
  }

  // MARK: Statements

  mutating func run(
    _ statements: [TemplateStatement], _ scope: TemplateScope, into output: inout String
  ) throws(TemplateError) -> Flow {
    for statement in statements {
      let flow = try descend(statement.offset) { (evaluator) throws(TemplateError) in
        try evaluator.run(statement, scope, into: &output)
      }
      if flow != .normal { return flow }
    }
    return .normal
  }

  private mutating func run(
    _ statement: TemplateStatement, _ scope: TemplateScope, into output: inout String
  ) throws(TemplateError) -> Flow {
    switch statement.kind {
    case .text(let text): try append(text, statement.offset, to: &output)
    case .output(let expression):
      let result = try evaluate(expression, scope)
      try append(text(of: result, expression.offset), expression.offset, to: &output)
    case .branch(let branches, let otherwise):
      for (test, body) in branches where try isTrue(test, scope) { return try run(body, scope, into: &output) }
      return try run(otherwise, scope, into: &output)
    case .loop(let loop): return try run(loop, statement.offset, scope, into: &output)
    case .set(let target, let expression): try set(target, expression, scope)
    case .setBlock(let target, let body):
      var text = ""
      let flow = try run(body, TemplateScope(parent: scope), into: &text)
      try assign(target, .data(.string(text)), statement.offset, scope)
      return flow
    case .macro(let macro):
      guard scope.isOutermost else {
        throw TemplateError(offset: statement.offset, reason: "macros inside loops and macros are not read")
      }
      scope[macro.name] = .macro(macro)
    case .breakLoop: return .breakLoop
    case .continueLoop: return .continueLoop
    case .block(let body): return try run(body, scope, into: &output)
    }
    return .normal
  }

  private mutating func append(_ text: String, _ offset: Int, to output: inout String) throws(TemplateError) {
    try checkLength(text.utf8.count, offset)
    output += text
    guard output.utf8.count <= limits.outputBytes else {
      throw TemplateError(offset: offset, reason: "the text comes to more than \(limits.outputBytes) bytes")
    }
  }

  private mutating func run(
    _ loop: TemplateStatement.Loop, _ offset: Int, _ scope: TemplateScope, into output: inout String
  ) throws(TemplateError) -> Flow {
    var elements = try iterated(evaluate(loop.iterable, scope), loop.iterable.offset)
    if let condition = loop.condition {
      var kept: [TemplateValue] = []
      for element in elements {
        let inner = TemplateScope(parent: scope)
        try unpack(element, loop.targets, offset, inner)
        if try isTrue(condition, inner) { kept.append(element) }
      }
      elements = kept
    }
    if elements.isEmpty { return try run(loop.otherwise, scope, into: &output) }
    for (index, element) in elements.enumerated() {
      let inner = TemplateScope(["loop": .loop(TemplateLoop(index: index, elements: elements))], parent: scope)
      try unpack(element, loop.targets, offset, inner)
      if try run(loop.body, inner, into: &output) == .breakLoop { break }
    }
    return .normal
  }

  private mutating func set(
    _ target: TemplateStatement.Target, _ expression: TemplateExpression, _ scope: TemplateScope
  ) throws(TemplateError) {
    try assign(target, evaluate(expression, scope), expression.offset, scope)
  }

  private mutating func assign(
    _ target: TemplateStatement.Target, _ value: TemplateResult, _ offset: Int, _ scope: TemplateScope
  ) throws(TemplateError) {
    switch target {
    case .names(let names):
      if names.count == 1 { scope[names[0]] = value } else { try unpack(data(value, offset), names, offset, scope) }
    case .attribute(let name, let attribute):
      guard case .namespace(let namespace) = scope[name] else {
        throw TemplateError(offset: offset, reason: "\(name) is not a namespace, and so \(attribute) cannot be set")
      }
      // Without this a namespace could hold itself, and would never be freed.
      namespace.members[attribute] = try data(value, offset)
    }
  }

  private func unpack(
    _ value: TemplateValue, _ names: [String], _ offset: Int, _ scope: TemplateScope
  ) throws(TemplateError) {
    if names.count == 1 {
      scope[names[0]] = .data(value)
      return
    }
    guard case .array(let parts) = value, parts.count == names.count else {
      throw TemplateError(offset: offset, reason: "\(value.kind) cannot be taken apart into \(names.count) names")
    }
    for (name, part) in zip(names, parts) { scope[name] = .data(part) }
  }

  // MARK: Expressions

  mutating func evaluate(
    _ expression: TemplateExpression, _ scope: TemplateScope
  ) throws(TemplateError) -> TemplateResult {
    try descend(expression.offset) { (evaluator) throws(TemplateError) in
      try evaluator.dispatch(expression, scope)
    }
  }

  /// One call for each kind: a frame with the locals of all of them would be large, and there are many of it.
  private mutating func dispatch(
    _ expression: TemplateExpression, _ scope: TemplateScope
  ) throws(TemplateError) -> TemplateResult {
    let offset = expression.offset
    switch expression.kind {
    case .literal(let value): return .data(value)
    case .name(let name): return scope[name] ?? .undefined(name)
    case .list(let elements): return try list(elements, scope, offset)
    case .object(let members): return try object(members, scope, offset)
    case .unary(let sign, let operand): return try unary(sign, operand, scope)
    case .binary(let found, let left, let right): return try binary(found, left, right, scope, offset)
    case .comparison(let first, let rest): return try comparison(first, rest, scope)
    case .conditional(let then, let test, let otherwise): return try conditional(then, test, otherwise, scope)
    case .attribute(let base, let name): return try attribute(evaluate(base, scope), name, offset)
    case .subscripted(let base, let key): return try subscripted(base, key, scope, offset)
    case .slice(let base, let from, let to, let step): return try slice(base, [from, to, step], scope, offset)
    case .call(let callee, let arguments): return try call(callee, arguments, scope, offset)
    case .method(let base, let name, let arguments): return try callMethod(base, name, arguments, scope, offset)
    case .filter(let base, let name, let arguments):
      return try filter(name, evaluate(base, scope), self.arguments(arguments, scope, offset))
    case .test(let base, let name, let arguments):
      return .data(.bool(try test(name, evaluate(base, scope), self.arguments(arguments, scope, offset))))
    }
  }

  mutating func isTrue(_ expression: TemplateExpression, _ scope: TemplateScope) throws(TemplateError) -> Bool {
    isTrue(try evaluate(expression, scope))
  }

  func isTrue(_ result: TemplateResult) -> Bool {
    switch result {
    case .undefined: false
    case .data(let value): value.isTrue
    case .namespace, .loop, .macro, .function: true
    }
  }

  func data(_ result: TemplateResult, _ offset: Int) throws(TemplateError) -> TemplateValue {
    switch result {
    case .data(let value): return value
    case .undefined(let name): throw TemplateError(offset: offset, reason: "\(name) is undefined")
    case .namespace: throw TemplateError(offset: offset, reason: "a namespace is no value")
    case .loop: throw TemplateError(offset: offset, reason: "the variable of a loop is no value")
    case .macro(let macro): throw TemplateError(offset: offset, reason: "the macro \(macro.name) is no value")
    case .function(let name): throw TemplateError(offset: offset, reason: "the function \(name) is no value")
    }
  }

  mutating func data(_ expression: TemplateExpression, _ scope: TemplateScope) throws(TemplateError) -> TemplateValue {
    try data(evaluate(expression, scope), expression.offset)
  }

  /// What is written where a value is put out; nothing for what is undefined.
  func text(of result: TemplateResult, _ offset: Int) throws(TemplateError) -> String {
    if case .undefined = result { return "" }
    let value = try data(result, offset)
    guard let text = value.text else {
      throw TemplateError(offset: offset, reason: "\(value.kind) has no text of its own; tojson and join give it one")
    }
    return text
  }

  /// What a loop goes through: elements, keys or characters; nothing for what is undefined.
  mutating func iterated(_ result: TemplateResult, _ offset: Int) throws(TemplateError) -> [TemplateValue] {
    if case .undefined = result { return [] }
    switch try data(result, offset) {
    case .array(let elements):
      try charge(elements.count, offset)
      return elements
    case .object(let object):
      try charge(object.pairs.count, offset)
      return object.pairs.map { .string($0.key) }
    case .string(let text):
      try charge(text.utf8.count * Self.stepsOfElement, offset)
      return text.unicodeScalars.map { .string(String(Character($0))) }
    case let value:
      throw TemplateError(offset: offset, reason: "\(value.kind) has no elements to go through")
    }
  }

  private mutating func list(
    _ elements: [TemplateExpression], _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    var values: [TemplateValue] = []
    for element in elements { values.append(try data(element, scope)) }
    return try nest(.array(values), offset)
  }

  private mutating func object(
    _ members: [(key: TemplateExpression, value: TemplateExpression)], _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    var object = TemplateObject()
    for (key, value) in members {
      guard case .string(let name) = try data(key, scope) else {
        throw TemplateError(offset: key.offset, reason: "keys that are not strings are not read")
      }
      object[name] = try data(value, scope)
    }
    return try nest(.object(object), offset)
  }

  /// An object of arguments by name, as `namespace` and `dict` take them.
  mutating func object(_ arguments: TemplateCall) throws(TemplateError) -> TemplateObject {
    var object = TemplateObject()
    if let first = arguments.positional.first {
      guard arguments.positional.count == 1, case .object(let given) = try data(first, arguments.offset) else {
        throw TemplateError(offset: arguments.offset, reason: "takes one object, or arguments by name")
      }
      object = given
    }
    for (name, value) in arguments.named { object[name] = try data(value, arguments.offset) }
    _ = try nest(.object(object), arguments.offset)
    return object
  }

  private mutating func conditional(
    _ then: TemplateExpression, _ test: TemplateExpression, _ otherwise: TemplateExpression?, _ scope: TemplateScope
  ) throws(TemplateError) -> TemplateResult {
    if try isTrue(test, scope) { return try evaluate(then, scope) }
    guard let otherwise else { return .undefined("the value of an if without else") }
    return try evaluate(otherwise, scope)
  }

  mutating func arguments(
    _ arguments: TemplateArguments, _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateCall {
    var call = TemplateCall(offset: offset)
    for argument in arguments.positional { call.positional.append(try evaluate(argument, scope)) }
    for (name, value) in arguments.named {
      guard !call.named.contains(where: { $0.name == name }) else {
        throw TemplateError(offset: value.offset, reason: "the argument \(name) is there twice")
      }
      call.named.append((name, try evaluate(value, scope)))
    }
    return call
  }

  // MARK: Macros

  private mutating func call(
    _ callee: TemplateExpression, _ arguments: TemplateArguments, _ scope: TemplateScope, _ offset: Int
  ) throws(TemplateError) -> TemplateResult {
    let call = try self.arguments(arguments, scope, offset)
    switch try evaluate(callee, scope) {
    case .macro(let macro): return try run(macro, call)
    case .function(let name): return try function(name, call)
    case .undefined(let name):
      let hint = name == "strftime_now" ? "; it needs a clock, which the caller may pass" : ""
      throw TemplateError(offset: offset, reason: "\(name) is undefined\(hint)")
    case .data(let value): throw TemplateError(offset: offset, reason: "\(value.kind) cannot be called")
    case .namespace, .loop: throw TemplateError(offset: offset, reason: "cannot be called")
    }
  }

  private mutating func run(
    _ macro: TemplateStatement.Macro, _ call: TemplateCall
  ) throws(TemplateError) -> TemplateResult {
    let scope = TemplateScope(parent: globals)
    guard call.positional.count <= macro.parameters.count else {
      throw TemplateError(
        offset: call.offset,
        reason: "\(macro.name) takes \(macro.parameters.count) arguments, not \(call.positional.count)")
    }
    for (index, parameter) in macro.parameters.enumerated() {
      let named = call.named.first { $0.name == parameter.name }?.value
      if index < call.positional.count {
        guard named == nil else {
          throw TemplateError(offset: call.offset, reason: "the argument \(parameter.name) is there twice")
        }
        scope[parameter.name] = call.positional[index]
      } else if let named {
        scope[parameter.name] = named
      } else if let standard = parameter.standard {
        scope[parameter.name] = try evaluate(standard, scope)
      } else {
        scope[parameter.name] = .undefined(parameter.name)
      }
    }
    for (name, _) in call.named where !macro.parameters.contains(where: { $0.name == name }) {
      throw TemplateError(offset: call.offset, reason: "\(macro.name) has no argument \(name)")
    }
    var output = ""
    _ = try run(macro.body, scope, into: &output)
    return .data(.string(output))
  }
}

/// The arguments of a call, evaluated.
struct TemplateCall {
  var offset: Int
  var positional: [TemplateResult] = []
  var named: [(name: String, value: TemplateResult)] = []

  /// The argument at this place or of this name.
  func argument(_ place: Int, _ name: String) -> TemplateResult? {
    place < positional.count ? positional[place] : named.first { $0.name == name }?.value
  }

  /// Refuses arguments that are not among these.
  func expect(_ what: String, _ names: [String]) throws(TemplateError) {
    guard positional.count <= names.count else {
      throw TemplateError(offset: offset, reason: "\(what) takes at most \(names.count) arguments here")
    }
    for (name, _) in named where !names.contains(name) {
      throw TemplateError(offset: offset, reason: "\(what) has no argument \(name) that is read")
    }
  }
}
