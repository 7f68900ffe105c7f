/// What a chat template is parsed into. Each node has its byte in the template, for errors.
struct TemplateExpression: Sendable {
  let offset: Int
  let kind: Kind
  /// The most nodes from here to a leaf: what evaluates it, and what frees it, goes as deep.
  let depth: Int

  indirect enum Kind: Sendable {
    case literal(TemplateValue)
    case name(String)
    case list([TemplateExpression])
    case object([(key: TemplateExpression, value: TemplateExpression)])
    case unary(Operator, TemplateExpression)
    case binary(Operator, TemplateExpression, TemplateExpression)
    /// `a < b < c`.
    case comparison(TemplateExpression, [(Operator, TemplateExpression)])
    case conditional(then: TemplateExpression, test: TemplateExpression, otherwise: TemplateExpression?)
    case attribute(TemplateExpression, String)
    case subscripted(TemplateExpression, TemplateExpression)
    case slice(TemplateExpression, from: TemplateExpression?, to: TemplateExpression?, step: TemplateExpression?)
    case call(TemplateExpression, TemplateArguments)
    case method(TemplateExpression, String, TemplateArguments)
    case filter(TemplateExpression, String, TemplateArguments)
    case test(TemplateExpression, String, TemplateArguments)
  }

  enum Operator: String, Sendable {
    case or, and, not
    case equal = "==", notEqual = "!=", less = "<", lessOrEqual = "<=", greater = ">", greaterOrEqual = ">="
    case isIn = "in", isNotIn = "not in"
    case add = "+", subtract = "-", concatenate = "~", multiply = "*", divide = "/", floorDivide = "//", modulo = "%"
  }
}

struct TemplateArguments: Sendable {
  var positional: [TemplateExpression] = []
  var named: [(name: String, value: TemplateExpression)] = []
}

struct TemplateStatement: Sendable {
  let offset: Int
  let kind: Kind

  indirect enum Kind: Sendable {
    case text(String)
    case output(TemplateExpression)
    case branch([(test: TemplateExpression, body: [TemplateStatement])], otherwise: [TemplateStatement])
    case loop(Loop)
    case set(Target, TemplateExpression)
    case setBlock(Target, [TemplateStatement])
    case macro(Macro)
    case breakLoop
    case continueLoop
    /// What is rendered as it is, such as `{% generation %}`.
    case block([TemplateStatement])
  }

  struct Loop: Sendable {
    var targets: [String]
    var iterable: TemplateExpression
    var condition: TemplateExpression?
    var body: [TemplateStatement]
    var otherwise: [TemplateStatement]
  }

  enum Target: Sendable {
    case names([String])
    /// `ns.attribute`.
    case attribute(String, String)
  }

  struct Macro: Sendable {
    var name: String
    var parameters: [(name: String, standard: TemplateExpression?)]
    var body: [TemplateStatement]
  }
}
