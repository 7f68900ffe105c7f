import Foundation
import QuernModels
import QuernTesting
import Testing

/// Templates and conversations that jinja2 rendered as transformers has it; tools/fixtures/chat_templates.py.
@Suite struct ChatTemplateTests {
  static func fixture() throws -> TemplateObject {
    let document = try JSONDocument(path: Fixture.path("chat/templates.json"))
    return try #require(object(TemplateValue(document.root)))
  }

  static func object(_ value: TemplateValue?) -> TemplateObject? {
    if case .object(let object) = value { object } else { nil }
  }

  static func array(_ value: TemplateValue?) -> [TemplateValue]? {
    if case .array(let elements) = value { elements } else { nil }
  }

  static func string(_ value: TemplateValue?) -> String? {
    if case .string(let text) = value { text } else { nil }
  }

  /// The fixture's clock.
  @Sendable static func clock(_ format: String) -> String {
    format.replacingOccurrences(of: "%d %b %Y", with: "21 Nov 2026")
      .replacingOccurrences(of: "%Y-%m-%d", with: "2026-11-21")
  }

  static func render(
    _ source: String, _ conversation: TemplateObject, _ extra: TemplateObject = [:]
  ) throws -> String {
    let messages = try (array(conversation["messages"]) ?? []).map { value in
      let message = try #require(object(value))
      return ChatMessage(
        role: string(message["role"]) ?? "", content: string(message["content"]) ?? "", fields: message)
    }
    var variables: [String: TemplateValue] = [:]
    for (key, value) in (object(conversation["extra"]) ?? [:]).pairs + extra.pairs { variables[key] = value }
    return try ChatTemplate(source: source, file: "test.jinja").render(
      messages: messages, tools: array(conversation["tools"]),
      addGenerationPrompt: conversation["add_generation_prompt"] == .bool(true), bosToken: "<s>", eosToken: "</s>",
      extra: variables, clock: clock)
  }

  @Test func commonTemplatesAgreeWithJinja() throws {
    let fixture = try Self.fixture()
    let templates = try #require(Self.object(fixture["templates"]))
    let conversations = try #require(Self.object(fixture["conversations"]))
    var (rendered, refused) = (0, 0)
    for (name, template) in templates.pairs {
      let source = try #require(Self.string(template))
      for (key, conversation) in conversations.pairs {
        let expected = Self.object(Self.object(fixture["rendered"])?[name])?[key]
        let given = try #require(Self.object(conversation))
        switch expected {
        case .string where key == "parts" && ["llama3", "llama3.1", "gemma2"].contains(name):
          // Python writes the list of parts into the prompt as its source code.
          #expect(modelError { _ = try Self.render(source, given) }?.reason.contains("a list") == true)
        case .string(let text):
          let found = try Self.render(source, given)
          #expect(Array(found.utf8) == Array(text.utf8), "\(name), \(key): \(found)")
          rendered += 1
        default:
          let error = modelError { _ = try Self.render(source, given) }
          #expect(error?.offset != nil && error?.field.hasPrefix("line ") == true, "\(name), \(key)")
          refused += 1
        }
      }
    }
    #expect(rendered > 100 && refused > 10)
  }

  @Test func everyFeatureAgreesWithJinja() throws {
    let fixture = try Self.fixture()
    let sample = try #require(Self.object(fixture["sample"]))
    let conversation = try #require(Self.object(Self.object(fixture["conversations"])?["called"]))
    let snippets = try #require(Self.array(fixture["snippets"]))
    #expect(snippets.count > 90)
    for snippet in snippets {
      let source = try #require(Self.string(Self.object(snippet)?["template"]))
      if case .string(let text) = Self.object(snippet)?["rendered"] {
        do {
          let found = try Self.render(source, conversation, sample)
          #expect(Array(found.utf8) == Array(text.utf8), "\(source)\n\(found)\n\(text)")
        } catch {
          Issue.record("\(source): \(error)")
        }
      } else {
        #expect(modelError { _ = try Self.render(source, conversation, sample) } != nil, "\(source)")
      }
    }
  }

  // MARK: Refusals

  static let refused: [(source: String, place: String, name: String)] = [
    ("{% include 'x' %}", "line 1, column 4", "include"),
    ("a\n{{ x | pprint }}", "line 2, column 6", "pprint"),
    ("é {{ 1 is prime }}", "line 1, column 8", "prime"),
    ("{{ 'x'.encode() }}", "line 1, column 7", "encode"),
    ("{{ {}.update() }}", "line 1, column 6", "update"),
    ("{{ lipsum() }}", "line 1, column 10", "lipsum"),
    ("{{ 2 ** 3 }}", "line 1, column 6", "**"),
    ("{{ loop.depth }}{% for x in [1] %}\n{{ loop.depth }}{% endfor %}", "line 1, column 8", "loop"),
    ("{% for x in [1] %}\n{{ loop.depth }}{% endfor %}", "line 2, column 8", "loop.depth"),
    ("{% for x in [1] recursive %}{% endfor %}", "line 1, column 17", "recursive"),
    ("{% set x = [1] %}{{ x }}", "line 1, column 21", "a list"),
    ("{{ messages[0].items }}", "line 1, column 15", "items"),
    ("{{ strftime_now('%Y') }}", "line 1, column 16", "clock"),
    ("{{ raise_exception('no ' ~ 'way') }}", "line 1, column 19", "no way"),
    ("{{ 9999999999999999999 }}", "line 1, column 4", "64 bits"),
    ("{{ 9223372036854775807 + 1 }}", "line 1, column 26", "64 bits"),
    ("{{ f(*messages) }}", "line 1, column 6", "*"),
    ("{{ '\\N{BULLET}' }}", "line 1, column 5", "by name"),
  ]

  @Test(arguments: refused) func whatIsNotKnownIsRefusedWithItsPlace(
    _ source: String, _ place: String, _ name: String
  ) throws {
    let error = try #require(
      modelError {
        _ = try ChatTemplate(source: source, file: "t.jinja").render(messages: [ChatMessage(role: "user", content: "x")]
        )
      }, "was rendered")
    #expect(error.file == "t.jinja" && error.field == place && error.reason.contains(name), "\(error)")
    #expect(error.offset != nil && !error.description.contains("\n"))
  }

  /// Each of them would take all of the memory, the stack or the time there is.
  static let hostile: [(name: String, source: String)] = [
    ("brackets", "{{ " + String(repeating: "(", count: 100_000) + "1"),
    ("lists", "{{ " + String(repeating: "[", count: 100_000)),
    ("objects", "{{ " + String(repeating: "{'a':", count: 40_000)),
    ("not", "{{ " + String(repeating: "not ", count: 50_000) + "1 }}"),
    ("signs", "{{ " + String(repeating: "-", count: 100_000) + "1 }}"),
    ("sums", "{{ 1" + String(repeating: "+1", count: 100_000) + " }}"),
    ("attributes", "{{ a" + String(repeating: ".a", count: 100_000) + " }}"),
    ("filters", "{{ a" + String(repeating: "|d", count: 100_000) + " }}"),
    ("subscripts", "{{ " + String(repeating: "a[", count: 100_000)),
    ("conditions", "{{ " + String(repeating: "1 if 1 else ", count: 20_000) + "1 }}"),
    ("tags", String(repeating: "{% if 1 %}", count: 20_000)),
    ("generations", String(repeating: "{% generation %}", count: 15_000)),
    ("comparisons", "{{ a" + String(repeating: " is not none", count: 20_000) + " }}"),
    ("a macro that calls itself", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"),
    (
      "nested loops",
      String(repeating: "{% for x in range(100000) %}", count: 9) + String(repeating: "{% endfor %}", count: 9)
    ),
    ("a long range", "{{ range(9223372036854775807)|length }}"),
    (
      "a range at the end of the integers",
      "{{ range(9223372036854775806, 9223372036854775807, 9223372036854775807)|list }}"
    ),
    ("doubling", "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"),
    (
      "doubling of lists",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
    ),
    ("repetition", "{{ 'x' * 9223372036854775807 }}"),
    ("replacement", "{% set a = 'x' * 100000 %}{{ a|replace('x', a) }}"),
    ("joining", "{% set a = 'x' * 1000000 %}{{ range(100000)|join(a) }}"),
    ("indenting", "{{ ('\\n' * 1000000)|indent(1000000, true, true) }}"),
    ("output", "{% for i in range(100000) %}{{ 'x' * 100000 }}{% endfor %}"),
    (
      "values in values",
      "{% set ns = namespace(v=[]) %}{% for i in range(100000) %}{% set ns.v = [ns.v] %}{% endfor %}"
    ),
    (
      "large lists again and again",
      "{% set a = range(1000000)|list %}{% for i in a %}{% if a == a %}{% endif %}{% endfor %}"
    ),
    ("searching", "{% set a = 'x' * 10000000 %}{% for i in range(1000000) %}{% if 'y' in a %}{% endif %}{% endfor %}"),
    (
      "searching with many false starts",
      "{% set a = 'a' * 4000000 %}{% for i in range(9) %}{{ (a ~ 'c').find(a ~ 'b') }}{% endfor %}{{ 1/0 }}"
    ),
    ("splitting", "{% set a = ',' * 8000000 %}{{ a.split(',')|length }}"),
    ("sorting one long string", "{% set a = 'X' * 4000000 %}{{ [a, a, a, a, a, a, a, a]|sort|length }}"),
    ("long names of attributes", "{% set a = 'x' * 8000000 %}{{ range(100000)|selectattr(a)|list }}"),
    ("json of one long string", "{% set a = 'x' * 8000000 %}{{ [a, a, a, a, a, a, a, a]|tojson }}"),
    (
      "many prefixes",
      "{% set a = 'x' * 4000000 %}{% for i in range(99) %}{{ a.startswith([a ~ 'y', a ~ 'z']) }}{% endfor %}"
    ),
    ("unique", "{{ range(1000000)|unique|length }}"),
    (
      "json of much",
      "{% set a = range(1000000)|list %}{{ [a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a]|tojson(indent=64) }}"
    ),
  ]

  @Test(arguments: hostile) func hostileTemplatesAreRefused(_ name: String, _ source: String) async throws {
    let error = await Self.onSmallStack {
      modelError { _ = try ChatTemplate(source: source, file: "t.jinja").render(messages: []) }
    }
    #expect(error != nil && error?.description.utf8.count ?? 0 < 4000, "\(name)")
  }

  /// As deep as templates may be, in the kinds that take the most stack.
  @Test func whatIsAllowedFitsASmallStack() async throws {
    let sources = [
      "{{ " + String(repeating: "(", count: 90) + "1" + String(repeating: ")", count: 90) + " }}",
      "{{ " + String(repeating: "-", count: 90) + "1 }}",
      "{{ 0" + String(repeating: "+1", count: 90) + " }}",
      "{{ " + String(repeating: "[", count: 70) + String(repeating: "]", count: 70) + "|tojson }}",
      "{% macro f(n) %}{% for i in [n] %}{% if i %}{{ (f(i - 1) ~ '')|trim }}{% endif %}{% endfor %}{% endmacro %}{{ f(25) }}x",
      String(repeating: "{% if 1 %}", count: 90) + "x" + String(repeating: "{% endif %}", count: 90),
      String(repeating: "{% for x in [1] %}", count: 90) + "x" + String(repeating: "{% endfor %}", count: 90),
    ]
    for source in sources {
      let result = await Self.onSmallStack {
        Result { try ChatTemplate(source: source, file: "t").render(messages: []) }
      }
      #expect(try !result.get().isEmpty, "\(source.prefix(40))")
    }
  }

  /// What threads of other systems have; a debugger's and a sanitizer's frames are larger.
  private static let stackSize: Int = {
    #if DEBUG
      return 8 << 20
    #else
      return AllocationTests.isSanitized ? 8 << 20 : 512 << 10
    #endif
  }()

  static func onSmallStack<R: Sendable>(_ body: @escaping @Sendable () -> R) async -> R {
    await withCheckedContinuation { continuation in
      let thread = Thread { continuation.resume(returning: body()) }
      thread.stackSize = stackSize
      thread.start()
    }
  }

  @Test func limitsCanBeLowered() throws {
    var template = try ChatTemplate(source: "{% for i in range(100) %}{{ i }}{% endfor %}", file: "t")
    #expect(try template.render(messages: []).utf8.count == 190)
    template.limits = ChatTemplate.Limits(outputBytes: 189)
    #expect(modelError { _ = try template.render(messages: []) }?.reason.contains("189") == true)
    template.limits = ChatTemplate.Limits(steps: 50)
    #expect(modelError { _ = try template.render(messages: []) }?.reason.contains("50 steps") == true)
    template.limits = ChatTemplate.Limits(depth: 2)
    #expect(modelError { _ = try template.render(messages: []) }?.reason.contains("2 levels") == true)
    let long = String(repeating: "x", count: ChatTemplate.sizeLimit + 1)
    #expect(modelError { _ = try ChatTemplate(source: long, file: "t") }?.field == "chat_template")
    var deep = TemplateValue.none
    for _ in 0..<100 { deep = [deep] }
    let error = modelError { _ = try ChatTemplate(source: "x", file: "t").render(messages: [], extra: ["deep": deep]) }
    #expect(error?.field == "deep")
  }

  /// The templates of the fixture with bytes changed: a typed error or a text.
  @Test func changedTemplatesNeverTrap() throws {
    let fixture = try Self.fixture()
    let conversation = try #require(Self.object(Self.object(fixture["conversations"])?["called"]))
    let sources = try #require(Self.object(fixture["templates"])).pairs.compactMap { Self.string($0.value) }
    let snippets = try #require(Self.array(fixture["snippets"])).compactMap {
      Self.string(Self.object($0)?["template"])
    }
    let sample = try #require(Self.object(fixture["sample"]))
    let tags = [
      "{{", "}}", "{%", "%}", "{#", "#}", "-", "'", "[", "]", "(", ")", "|", ".", " if ", " is ", " in ", "loop", ":",
      "0",
    ]
    var random = SeededRandom()
    var (rendered, refused) = (0, 0)
    for round in 0..<2000 {
      var bytes = Array((round % 4 == 0 ? sources : snippets).randomElement(using: &random)!.utf8)
      for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
        let at = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[at] = UInt8.random(in: 0...127, using: &random)
        case 1: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...8, using: &random)))
        case 2: bytes.insert(contentsOf: Array(tags.randomElement(using: &random)!.utf8), at: at)
        default: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + 24)], at: at)
        }
      }
      do {
        _ = try Self.render(String(decoding: bytes, as: UTF8.self), conversation, sample)
        rendered += 1
      } catch {
        refused += 1
        #expect(error is ModelError, "\(error)")
      }
    }
    #expect(rendered > 100 && refused > 100, "\(rendered) rendered, \(refused) refused")
  }

  // MARK: Loading

  @Test func templatesAreFoundInModelFolders() throws {
    let user = [ChatMessage(role: "user", content: "x")]
    let folder = try TemporaryFolder()
    #expect(
      modelError { _ = try ChatTemplate.load(directory: folder.path) }?.reason.contains("no chat template") == true)
    let config = #"{"bos_token": {"content": "<b>"}, "eos_token": "<e>", "pad_token": null, "chat_template": "#
    try folder.write(
      "tokenizer_config.json", (config + #""{{ bos_token }}A{{ messages[0].content }}{{ eos_token }}"}"#).utf8)
    #expect(try ChatTemplate.load(directory: folder.path).render(messages: user) == "<b>Ax<e>")
    #expect(try ChatTemplate.load(directory: folder.path).render(messages: user, bosToken: "") == "Ax<e>")
    #expect(modelError { _ = try ChatTemplate.load(directory: folder.path, named: "rag") }?.field == "chat_template")
    try folder.write("chat_template.jinja", "B{{ pad_token }}{{ eos_token }}\n".utf8)
    #expect(try ChatTemplate.load(directory: folder.path).render(messages: user) == "B<e>")
    try FileManager.default.removeItem(atPath: folder.path + "/chat_template.jinja")
    let several = #"[{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T{{ 1 | bad }}"}]}"#
    try folder.write("tokenizer_config.json", (config + several).utf8)
    #expect(try ChatTemplate.load(directory: folder.path).render(messages: user) == "D")
    let error = modelError {
      _ = try ChatTemplate.load(directory: folder.path, named: "tool_use").render(messages: user)
    }
    #expect(error?.field == "chat_template[1].template, line 1, column 7", "\(String(describing: error))")
    #expect(error?.offset == (config + several).utf8.count - #""T{{ 1 | bad }}"}]}"#.utf8.count)
    let missing = modelError { _ = try ChatTemplate.load(directory: folder.path, named: "rag") }
    #expect(missing?.reason.contains("default, tool_use") == true)
    try folder.write("chat_template.jinja", [0xFF])
    #expect(modelError { _ = try ChatTemplate.load(directory: folder.path) }?.reason == "is not UTF-8")
  }

  @Test func theClockIsTheCallers() throws {
    let template = try ChatTemplate(
      source: "{{ strftime_now('%Y') if strftime_now is defined else 'never' }}", file: "t")
    #expect(try template.render(messages: []) == "never")
    #expect(try template.render(messages: []) { "year \($0)" } == "year %Y")
    let year = try template.render(messages: [], clock: ChatTemplate.localTime)
    #expect(Int(year).map { $0 > 2000 } == true)
  }
}
