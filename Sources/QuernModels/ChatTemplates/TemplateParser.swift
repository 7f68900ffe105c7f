/// Makes statements of the pieces of a chat template, with Jinja's grammar and precedence; what is not part of the subset is
/// refused by name.
struct TemplateParser {
  /// How deep tags and expressions may lie in one another: parsing, evaluating and freeing them is recursive.
  static let depthLimit = 100

  private let tokens: [TemplateToken]
  private var index = 0
  private var depth = 0

  private init(_ tokens: [TemplateToken]) { self.tokens = tokens }

  static func statements(_ bytes: [UInt8]) throws(TemplateError) -> [TemplateStatement] {
    var parser = TemplateParser(try TemplateLexer.tokens(bytes))
    return try parser.body(until: []).statements
  }

  // MARK: Tokens

  private var token: TemplateToken { tokens[min(index, tokens.count - 1)] }
  private var following: TemplateToken { tokens[min(index + 1, tokens.count - 1)] }

  private func error(_ reason: String) -> TemplateError { TemplateError(offset: token.offset, reason: reason) }

  private func isSymbol(_ symbol: String) -> Bool { token.kind == .symbol(symbol) }
  private func isName(_ name: String) -> Bool { token.kind == .name(name) }

  private mutating func skip(symbol: String) -> Bool {
    guard isSymbol(symbol) else { return false }
    index += 1
    return true
  }

  private mutating func skip(name: String) -> Bool {
    guard isName(name) else { return false }
    index += 1
    return true
  }

  private mutating func expect(_ kind: TemplateToken.Kind) throws(TemplateError) {
    guard token.kind == kind else {
      let wanted = TemplateToken(kind: kind, offset: 0).description
      throw error("\(token.description) stands where \(wanted) is needed")
    }
    index += 1
  }

  /// A name that can be a variable's.
  private mutating func variable() throws(TemplateError) -> String {
    guard case .name(let name) = token.kind, !Self.keywords.contains(name) else {
      throw error("\(token.description) stands where a name is needed")
    }
    index += 1
    return name
  }

  private static let keywords: Set<String> = [
    "and", "or", "not", "in", "is", "if", "else", "elif", "for", "true", "false", "none", "True", "False", "None",
  ]

  private mutating func nested<R>(
    _ body: (inout TemplateParser) throws(TemplateError) -> R
  ) throws(TemplateError) -> R {
    depth += 1
    guard depth <= Self.depthLimit else { throw error("is nested more than \(Self.depthLimit) levels deep") }
    let result = try body(&self)
    depth -= 1
    return result
  }

  // MARK: Statements

  /// Statements up to one of `ends`, whose name has been read then, or to the end of the template.
  private mutating func body(
    until ends: [String]
  ) throws(TemplateError) -> (statements: [TemplateStatement], end: String) {
    let start = token.offset
    var statements: [TemplateStatement] = []
    while true {
      let offset = token.offset
      switch token.kind {
      case .text(let text):
        index += 1
        statements.append(TemplateStatement(offset: offset, kind: .text(text)))
      case .openOutput:
        index += 1
        let expression = try expression()
        try expect(.closeOutput)
        statements.append(TemplateStatement(offset: offset, kind: .output(expression)))
      case .openBlock:
        index += 1
        guard case .name(let name) = token.kind else {
          throw error("\(token.description) stands where the name of a tag is needed")
        }
        if ends.contains(name) {
          index += 1
          return (statements, name)
        }
        statements.append(try nested { (parser) throws(TemplateError) in try parser.block(name, offset) })
      default:
        guard ends.isEmpty else {
          throw TemplateError(offset: start, reason: "what begins here has no \(ends.joined(separator: " or "))")
        }
        return (statements, "")
      }
    }
  }

  private mutating func block(_ name: String, _ offset: Int) throws(TemplateError) -> TemplateStatement {
    let kind: TemplateStatement.Kind
    switch name {
    case "if": kind = try branch()
    case "for": kind = try loop()
    case "set": kind = try set()
    case "macro": kind = try macro()
    case "generation":
      index += 1
      try expect(.closeBlock)
      kind = .block(try body(until: ["endgeneration"]).statements)
    case "break", "continue":
      index += 1
      kind = name == "break" ? .breakLoop : .continueLoop
    default:
      if name == "else" || name == "elif" || name.hasPrefix("end") { throw error("\(name) closes nothing here") }
      throw error(
        "the tag \(name) is not read; those that are: if, for, set, macro, generation, break, continue, raw")
    }
    try expect(.closeBlock)
    return TemplateStatement(offset: offset, kind: kind)
  }

  private mutating func branch() throws(TemplateError) -> TemplateStatement.Kind {
    var branches: [(test: TemplateExpression, body: [TemplateStatement])] = []
    index += 1
    while true {
      let test = try expression()
      try expect(.closeBlock)
      let (statements, end) = try body(until: ["elif", "else", "endif"])
      branches.append((test, statements))
      if end == "endif" { return .branch(branches, otherwise: []) }
      if end == "else" {
        try expect(.closeBlock)
        return .branch(branches, otherwise: try body(until: ["endif"]).statements)
      }
    }
  }

  private mutating func loop() throws(TemplateError) -> TemplateStatement.Kind {
    index += 1
    let targets = try targets()
    try expect(.name("in"))
    let iterable = try binary(0)
    let condition = skip(name: "if") ? try expression() : nil
    if isName("recursive") { throw error("recursive loops are not read") }
    try expect(.closeBlock)
    let (statements, end) = try body(until: ["else", "endfor"])
    var otherwise: [TemplateStatement] = []
    if end == "else" {
      try expect(.closeBlock)
      otherwise = try body(until: ["endfor"]).statements
    }
    return .loop(
      TemplateStatement.Loop(
        targets: targets, iterable: iterable, condition: condition, body: statements, otherwise: otherwise))
  }

  /// `a`, `a, b` or `(a, b)`.
  private mutating func targets() throws(TemplateError) -> [String] {
    let hasBracket = skip(symbol: "(")
    var names = [try variable()]
    while skip(symbol: ",") { names.append(try variable()) }
    if hasBracket { try expect(.symbol(")")) }
    return names
  }

  private mutating func set() throws(TemplateError) -> TemplateStatement.Kind {
    index += 1
    let target: TemplateStatement.Target
    if following.kind == .symbol(".") {
      let name = try variable()
      index += 1
      target = .attribute(name, try variable())
    } else {
      target = .names(try targets())
    }
    if skip(symbol: "=") {
      let first = try expression()
      guard isSymbol(",") else { return .set(target, first) }
      var elements = [first]
      while skip(symbol: ",") { elements.append(try expression()) }
      return .set(target, try node(first.offset, .list(elements), elements))
    }
    try expect(.closeBlock)
    return .setBlock(target, try body(until: ["endset"]).statements)
  }

  private mutating func macro() throws(TemplateError) -> TemplateStatement.Kind {
    index += 1
    let name = try variable()
    try expect(.symbol("("))
    var parameters: [(name: String, standard: TemplateExpression?)] = []
    while !isSymbol(")") {
      let parameter = try variable()
      guard !parameters.contains(where: { $0.name == parameter }) else {
        throw error("the parameter \(parameter) is there twice")
      }
      let standard = skip(symbol: "=") ? try expression() : nil
      guard standard != nil || parameters.last?.standard == nil else {
        throw error("a parameter without a value of its own follows one with")
      }
      parameters.append((parameter, standard))
      if !skip(symbol: ",") { break }
    }
    try expect(.symbol(")"))
    try expect(.closeBlock)
    return .macro(
      TemplateStatement.Macro(name: name, parameters: parameters, body: try body(until: ["endmacro"]).statements))
  }

  // MARK: Expressions

  private func node(
    _ offset: Int, _ kind: TemplateExpression.Kind, _ children: [TemplateExpression] = []
  ) throws(TemplateError) -> TemplateExpression {
    let depth = 1 + (children.map(\.depth).max() ?? 0)
    guard depth <= Self.depthLimit else {
      throw TemplateError(offset: offset, reason: "is an expression more than \(Self.depthLimit) levels deep")
    }
    return TemplateExpression(offset: offset, kind: kind, depth: depth)
  }

  private mutating func expression() throws(TemplateError) -> TemplateExpression {
    try nested { (parser) throws(TemplateError) in try parser.conditional() }
  }

  private mutating func conditional() throws(TemplateError) -> TemplateExpression {
    var result = try binary(0)
    while skip(name: "if") {
      let test = try binary(0)
      let otherwise = skip(name: "else") ? try expression() : nil
      result = try node(
        result.offset, .conditional(then: result, test: test, otherwise: otherwise),
        [result, test] + (otherwise.map { [$0] } ?? []))
    }
    return result
  }

  /// Operators of this level of precedence and of those that bind more tightly, from `or` on.
  private mutating func binary(_ level: Int) throws(TemplateError) -> TemplateExpression {
    let offset = token.offset
    if level == Self.notLevel, skip(name: "not") {
      let operand = try nested { (parser) throws(TemplateError) in try parser.binary(Self.notLevel) }
      return try node(offset, .unary(.not, operand), [operand])
    }
    guard level < Self.levelCount else { return try unary(takesFilters: true) }
    var left = try binary(level + 1)
    if level == Self.comparisonLevel { return try comparison(left) }
    while let found = binaryOperator(level) {
      index += 1
      let right = try binary(level + 1)
      left = try node(left.offset, .binary(found, left, right), [left, right])
    }
    return left
  }

  private static let notLevel = 2
  private static let comparisonLevel = 3
  private static let levelCount = 7

  private func binaryOperator(_ level: Int) -> TemplateExpression.Operator? {
    switch (level, token.kind) {
    case (0, .name("or")): .or
    case (1, .name("and")): .and
    case (4, .symbol("+")): .add
    case (4, .symbol("-")): .subtract
    case (5, .symbol("~")): .concatenate
    case (6, .symbol("*")): .multiply
    case (6, .symbol("/")): .divide
    case (6, .symbol("//")): .floorDivide
    case (6, .symbol("%")): .modulo
    default: nil
    }
  }

  private mutating func comparison(_ first: TemplateExpression) throws(TemplateError) -> TemplateExpression {
    var rest: [(TemplateExpression.Operator, TemplateExpression)] = []
    while true {
      let found: TemplateExpression.Operator
      if case .symbol(let symbol) = token.kind, ["==", "!=", "<", "<=", ">", ">="].contains(symbol),
        let known = TemplateExpression.Operator(rawValue: symbol)
      {
        found = known
      } else if isName("in") {
        found = .isIn
      } else if isName("not"), following.kind == .name("in") {
        found = .isNotIn
        index += 1
      } else {
        return rest.isEmpty ? first : try node(first.offset, .comparison(first, rest), [first] + rest.map(\.1))
      }
      index += 1
      rest.append((found, try binary(Self.comparisonLevel + 1)))
    }
  }

  private mutating func unary(takesFilters: Bool) throws(TemplateError) -> TemplateExpression {
    let offset = token.offset
    var result: TemplateExpression
    if isSymbol("-") || isSymbol("+") {
      let sign = isSymbol("-") ? TemplateExpression.Operator.subtract : .add
      index += 1
      let operand = try nested { (parser) throws(TemplateError) in try parser.unary(takesFilters: false) }
      result = try node(offset, .unary(sign, operand), [operand])
    } else {
      result = try postfix(primary())
    }
    if isSymbol("**") { throw error("the operator ** is not read") }
    return takesFilters ? try filters(result) : result
  }

  private mutating func primary() throws(TemplateError) -> TemplateExpression {
    let offset = token.offset
    switch token.kind {
    case .string(var text):
      index += 1
      // Strings that stand side by side are one, as in Python.
      while case .string(let more) = token.kind {
        text += more
        index += 1
      }
      return try node(offset, .literal(.string(text)))
    case .int(let value):
      index += 1
      return try node(offset, .literal(.int(value)))
    case .double(let value):
      index += 1
      return try node(offset, .literal(.double(value)))
    case .name("true"), .name("True"):
      index += 1
      return try node(offset, .literal(.bool(true)))
    case .name("false"), .name("False"):
      index += 1
      return try node(offset, .literal(.bool(false)))
    case .name("none"), .name("None"):
      index += 1
      return try node(offset, .literal(.none))
    case .name:
      return try node(offset, .name(try variable()))
    case .symbol("("):
      return try parenthesis()
    case .symbol("["):
      index += 1
      let elements = try list(until: "]")
      return try node(offset, .list(elements), elements)
    case .symbol("{"):
      return try object()
    default:
      throw error("\(token.description) stands where a value is needed")
    }
  }

  private mutating func parenthesis() throws(TemplateError) -> TemplateExpression {
    let offset = token.offset
    index += 1
    if skip(symbol: ")") { return try node(offset, .list([])) }
    let first = try expression()
    guard skip(symbol: ",") else {
      try expect(.symbol(")"))
      return first
    }
    let elements = [first] + (try list(until: ")"))
    return try node(offset, .list(elements), elements)
  }

  private mutating func list(until end: String) throws(TemplateError) -> [TemplateExpression] {
    var elements: [TemplateExpression] = []
    while !isSymbol(end) {
      elements.append(try expression())
      if !skip(symbol: ",") { break }
    }
    try expect(.symbol(end))
    return elements
  }

  private mutating func object() throws(TemplateError) -> TemplateExpression {
    let offset = token.offset
    index += 1
    var members: [(key: TemplateExpression, value: TemplateExpression)] = []
    while !isSymbol("}") {
      let key = try expression()
      try expect(.symbol(":"))
      members.append((key, try expression()))
      if !skip(symbol: ",") { break }
    }
    try expect(.symbol("}"))
    return try node(offset, .object(members), members.flatMap { [$0.key, $0.value] })
  }

  // MARK: What follows a value

  private mutating func postfix(_ start: TemplateExpression) throws(TemplateError) -> TemplateExpression {
    var result = start
    while true {
      let offset = token.offset
      if skip(symbol: ".") {
        if case .int(let place) = token.kind {
          index += 1
          let key = try node(offset, .literal(.int(place)))
          result = try node(offset, .subscripted(result, key), [result, key])
          continue
        }
        guard case .name(let name) = token.kind else {
          throw error("\(token.description) stands where the name of an attribute is needed")
        }
        index += 1
        if isSymbol("(") {
          let arguments = try arguments()
          result = try node(offset, .method(result, name, arguments), [result] + arguments.expressions)
        } else {
          result = try node(offset, .attribute(result, name), [result])
        }
      } else if isSymbol("[") {
        result = try subscripted(result)
      } else if isSymbol("(") {
        let arguments = try arguments()
        result = try node(offset, .call(result, arguments), [result] + arguments.expressions)
      } else {
        return result
      }
    }
  }

  private mutating func subscripted(_ base: TemplateExpression) throws(TemplateError) -> TemplateExpression {
    let offset = token.offset
    index += 1
    var parts: [TemplateExpression?] = []
    var colons = 0
    var current: TemplateExpression?
    while !isSymbol("]") {
      if skip(symbol: ":") {
        parts.append(current)
        current = nil
        colons += 1
        guard colons <= 2 else { throw error("a slice has at most three parts") }
      } else if current == nil {
        current = try expression()
      } else {
        throw error("\(token.description) stands where ] is needed")
      }
    }
    index += 1
    guard colons > 0 else {
      guard let current else { throw error("] stands where a value is needed") }
      return try node(offset, .subscripted(base, current), [base, current])
    }
    parts.append(current)
    return try node(
      offset, .slice(base, from: parts[0], to: parts[1], step: parts.count > 2 ? parts[2] : nil),
      [base] + parts.compactMap { $0 })
  }

  private mutating func arguments() throws(TemplateError) -> TemplateArguments {
    try expect(.symbol("("))
    var arguments = TemplateArguments()
    while !isSymbol(")") {
      if isSymbol("*") || isSymbol("**") { throw error("arguments by \(token.description) are not read") }
      if case .name(let name) = token.kind, following.kind == .symbol("=") {
        index += 2
        arguments.named.append((name, try expression()))
      } else {
        guard arguments.named.isEmpty else { throw error("an argument without a name follows one with a name") }
        arguments.positional.append(try expression())
      }
      if !skip(symbol: ",") { break }
    }
    try expect(.symbol(")"))
    return arguments
  }

  private mutating func filters(_ start: TemplateExpression) throws(TemplateError) -> TemplateExpression {
    var result = start
    while true {
      let offset = token.offset
      if skip(symbol: "|") {
        let name = try variable()
        let arguments = isSymbol("(") ? try arguments() : TemplateArguments()
        result = try node(offset, .filter(result, name, arguments), [result] + arguments.expressions)
      } else if skip(name: "is") {
        result = try test(result, offset)
      } else {
        return result
      }
    }
  }

  private mutating func test(_ value: TemplateExpression, _ offset: Int) throws(TemplateError) -> TemplateExpression {
    let isNegated = skip(name: "not")
    guard case .name(let name) = token.kind else {
      throw error("\(token.description) stands where the name of a test is needed")
    }
    index += 1
    var arguments = TemplateArguments()
    if isSymbol("(") {
      arguments = try self.arguments()
    } else if TemplateTests.taking.contains(name) {
      // `x is divisibleby 3`.
      arguments.positional = [try postfix(primary())]
    }
    let result = try node(offset, .test(value, name, arguments), [value] + arguments.expressions)
    return isNegated ? try node(offset, .unary(.not, result), [result]) : result
  }
}

extension TemplateArguments {
  fileprivate var expressions: [TemplateExpression] { positional + named.map(\.value) }
}
