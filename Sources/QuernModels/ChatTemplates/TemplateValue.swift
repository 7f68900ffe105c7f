/// A value that a chat template works with: what JSON can say, with integers apart from other numbers.
public enum TemplateValue: Sendable, Equatable {
  case none
  case bool(Bool)
  case int(Int)
  case double(Double)
  case string(String)
  case array([TemplateValue])
  case object(TemplateObject)

  /// How deep arrays and objects may lie in one another.
  static let depthLimit = 80

  /// How many values there are in this one, itself included, or nil where one lies deeper than `limit`.
  func count(depth limit: Int = depthLimit) -> Int? {
    guard limit > 0 else { return nil }
    func sum(_ values: some Sequence<TemplateValue>) -> Int? {
      var sum = 1
      for value in values {
        guard let count = value.count(depth: limit - 1) else { return nil }
        sum += count
      }
      return sum
    }
    switch self {
    case .array(let elements): return sum(elements)
    case .object(let object): return sum(object.pairs.lazy.map(\.value))
    default: return 1
    }
  }

  /// Equality of Python: 1, 1.0 and true are the same; strings are compared code point by code point.
  public static func == (a: TemplateValue, b: TemplateValue) -> Bool {
    switch (a, b) {
    case (.none, .none): true
    case (.string(let a), .string(let b)): UTF8Key(a) == UTF8Key(b)
    case (.array(let a), .array(let b)): a == b
    case (.object(let a), .object(let b)): a == b
    default:
      if let a = a.integer, let b = b.integer {
        a == b
      } else if let a = a.number, let b = b.number {
        a == b
      } else {
        false
      }
    }
  }

  /// The integer that Python counts with, true being 1.
  var integer: Int? {
    switch self {
    case .bool(let value): value ? 1 : 0
    case .int(let value): value
    default: nil
    }
  }

  var number: Double? {
    if case .double(let value) = self { return value }
    return integer.map { Double($0) }
  }

  var isTrue: Bool {
    switch self {
    case .none: false
    case .bool(let value): value
    case .int(let value): value != 0
    case .double(let value): value != 0
    case .string(let value): !value.isEmpty
    case .array(let elements): !elements.isEmpty
    case .object(let object): !object.pairs.isEmpty
    }
  }

  /// What kind of value it is, for messages.
  var kind: String {
    switch self {
    case .none: "none"
    case .bool: "a boolean"
    case .int: "an integer"
    case .double: "a float"
    case .string: "a string"
    case .array: "a list"
    case .object: "an object"
    }
  }

  /// As Python's `str` has it; nil for lists and objects.
  var text: String? {
    switch self {
    case .none: "None"
    case .bool(let value): value ? "True" : "False"
    case .int(let value): String(value)
    case .double(let value): Self.text(value)
    case .string(let value): value
    case .array, .object: nil
    }
  }

  /// Python writes exponents from 1e16 on, Swift from 2^54.
  static func text(_ value: Double) -> String {
    let isLong = abs(value) >= 1e15 && abs(value) < 1e16
    return isLong ? "\(Int(value)).0" : value.description
  }
}

/// The members of an object, in the order they were given.
public struct TemplateObject: Sendable, Equatable, ExpressibleByDictionaryLiteral {
  public private(set) var pairs: [(key: String, value: TemplateValue)] = []
  private var places: [UTF8Key: Int] = [:]

  public init() {}

  public init(dictionaryLiteral elements: (String, TemplateValue)...) {
    for (key, value) in elements { self[key] = value }
  }

  /// The member named `key`. A new one comes last, a changed one stays where it is, and nil is not kept.
  public subscript(key: String) -> TemplateValue? {
    get { places[UTF8Key(key)].map { pairs[$0].value } }
    set {
      let found = places[UTF8Key(key)]
      switch (found, newValue) {
      case (let place?, let value?): pairs[place].value = value
      case (nil, let value?):
        places[UTF8Key(key)] = pairs.count
        pairs.append((key, value))
      case (let place?, nil):
        pairs.remove(at: place)
        places = [:]
        for (place, pair) in pairs.enumerated() { places[UTF8Key(pair.key)] = place }
      case (nil, nil): break
      }
    }
  }

  /// Whatever the order.
  public static func == (a: TemplateObject, b: TemplateObject) -> Bool {
    a.pairs.count == b.pairs.count && a.pairs.allSatisfy { b[$0.key] == $0.value }
  }
}

extension TemplateValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByFloatLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(integerLiteral value: Int) { self = .int(value) }
  public init(floatLiteral value: Double) { self = .double(value) }
  public init(arrayLiteral elements: TemplateValue...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, TemplateValue)...) {
    var object = TemplateObject()
    for (key, value) in elements { object[key] = value }
    self = .object(object)
  }
}

extension TemplateValue {
  /// A value of a JSON file; a number written without fraction and exponent is an integer.
  public init(_ json: JSONValue) throws(ModelError) {
    switch json.kind {
    case .null: self = .none
    case .bool: self = .bool(try json.bool())
    case .string: self = .string(try json.string())
    case .number:
      do throws(ModelError) { self = .int(try json.int()) } catch { self = .double(try json.double()) }
    case .array:
      var elements: [TemplateValue] = []
      try json.forEachElement { (element) throws(ModelError) in elements.append(try TemplateValue(element)) }
      self = .array(elements)
    case .object:
      var object = TemplateObject()
      try json.forEachMember { (key, member) throws(ModelError) in object[key] = try TemplateValue(member) }
      self = .object(object)
    }
  }

  /// As `json.dumps(value, ensure_ascii=False)` of Python writes it.
  struct JSONWriter {
    var indent: Int?
    var sortsKeys = false
    /// Nothing more is written once there are more bytes than this.
    var limit = Int.max
    var separators: (item: String, key: String)
    private(set) var text = ""

    init(indent: Int?, sortsKeys: Bool = false, separators: (item: String, key: String)? = nil) {
      (self.indent, self.sortsKeys) = (indent, sortsKeys)
      self.separators = separators ?? (indent == nil ? ", " : ",", ": ")
    }

    mutating func write(_ value: TemplateValue, level: Int = 0) {
      guard text.utf8.count <= limit else { return }
      switch value {
      case .none: text += "null"
      case .bool(let value): text += value ? "true" : "false"
      case .int(let value): text += String(value)
      case .double(let value):
        text +=
          value.isNaN ? "NaN" : value.isInfinite ? (value < 0 ? "-Infinity" : "Infinity") : TemplateValue.text(value)
      case .string(let value): write(value)
      case .array(let elements):
        write(elements, "[", "]", level) { writer, element in writer.write(element, level: level + 1) }
      case .object(let object):
        let pairs = sortsKeys ? object.pairs.sorted { UTF8Key($0.key) < UTF8Key($1.key) } : object.pairs
        write(pairs, "{", "}", level) { writer, pair in
          writer.write(pair.key)
          writer.text += writer.separators.key
          writer.write(pair.value, level: level + 1)
        }
      }
    }

    private mutating func write<Element>(
      _ elements: [Element], _ open: String, _ close: String, _ level: Int,
      _ body: (inout JSONWriter, Element) -> Void
    ) {
      text += open
      for (index, element) in elements.enumerated() {
        if index > 0 { text += separators.item }
        breakLine(level + 1)
        body(&self, element)
      }
      if !elements.isEmpty { breakLine(level) }
      text += close
    }

    private mutating func breakLine(_ level: Int) {
      if let indent { text += "\n" + String(repeating: " ", count: indent * level) }
    }

    private mutating func write(_ string: String) {
      text += "\""
      for scalar in string.unicodeScalars {
        switch scalar {
        case "\"": text += "\\\""
        case "\\": text += "\\\\"
        case "\n": text += "\\n"
        case "\r": text += "\\r"
        case "\t": text += "\\t"
        case "\u{8}": text += "\\b"
        case "\u{C}": text += "\\f"
        case "\u{0}"..<"\u{20}":
          let digits = String(scalar.value, radix: 16)
          text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: text.unicodeScalars.append(scalar)
        }
      }
      text += "\""
    }
  }
}
