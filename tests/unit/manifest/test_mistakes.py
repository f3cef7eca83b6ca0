"""Every mistake is named where it is, in words that its author understands."""

from __future__ import annotations

import pytest

from tests.unit.manifest.support import mistakes, text_of, with_environments, with_services
from tidegate import manifest
from tidegate.errors import ManifestError

COMMAND = "a command such as ./bin/web --fast, or a list of its words"

IN_SERVICE = [
    (
        "run: ''",
        f"run: line 4: is empty: it should be {COMMAND}",
    ),
    (
        "run: []",
        f"run: line 4: is empty: it should be {COMMAND}",
    ),
    ("run: [a, [b]]", "run: line 4: should be one word, not a list"),
    (
        "run: {a: b}",
        f"run: line 4: should be {COMMAND}, not a mapping",
    ),
    (
        "run: ",
        f"run: line 4: has no value: it should be {COMMAND}",
    ),
    ('run: "a \'b"', "run: line 4: opens a quote that is not closed"),
    (
        "run: a && b",
        (
            "run: line 4: has '&&' in it, which only a shell understands "
            '(no shell reads it; if you need one: [sh, -c, "..."])'
        ),
    ),
    (
        "run: make; serve",
        (
            "run: line 4: has 'make;' in it, which only a shell understands "
            '(no shell reads it; if you need one: [sh, -c, "..."])'
        ),
    ),
    ("run: A=1 serve", "run: line 4: begins with 'A=1' (set variables under config of an environment)"),
    ("run: x, rout: a.example", "rout: line 4: there is no such key (did you mean route?)"),
    ("run: x, secrets: [A]", "secrets: line 4: does not stand here (it stands in an environment)"),
    (
        "run: x, verify: ./smoke",
        (
            "verify: line 4: does not stand here "
            "(it stands in an environment, or at the top of the file for all of them)"
        ),
    ),
    (
        "run: x, route: 'https://shop.example.com:8080/cart'",
        (
            "route: line 4: should be a host name such as shop.example.com, not "
            "'https://shop.example.com:8080/cart' "
            "(the host alone, without scheme, port and path: shop.example.com)"
        ),
    ),
    (
        "run: x, route: '*.example.com'",
        (
            "route: line 4: should be a host name such as shop.example.com, not '*.example.com' "
            '(name each host, or "*" alone for every host that nobody else has)'
        ),
    ),
    (
        "run: x, route: bücher.example",
        (
            "route: line 4: should be a host name such as shop.example.com, not 'bücher.example' "
            "(write international names in their xn-- form)"
        ),
    ),
    ("run: x, route: [a.example, A.example]", "route: line 4: names a.example twice"),
    (
        "run: x, route: {a: b}",
        "route: line 4: should be a host name such as shop.example.com, or a list of them",
    ),
    (
        "run: x, health: healthz",
        "health: line 4: should be a path such as /healthz, not 'healthz' (did you mean /healthz?)",
    ),
    (
        "run: x, health: tcp",
        "health: line 4: should be a path such as /healthz, not 'tcp' (did you mean {tcp: true}?)",
    ),
    ("run: x, health: '/a b'", "health: line 4: should be a path such as /healthz, not '/a b'"),
    (
        "run: x, health: [/a]",
        "health: line 4: should be a mapping, not a list (write keys such as path: below it)",
    ),
    (
        "run: x, health: {path: /a, tcp: true}",
        (
            "health: line 4: should say one of path, tcp and command, not several "
            "(keep the one that tells best whether the service can work)"
        ),
    ),
    (
        "run: x, health: {tcp: false}",
        "health.tcp: line 4: has only one value, true (leave it out for no check of the port)",
    ),
    ("run: x, health: {interval: 10ms}", "health.interval: line 4: should be between 100ms and 1d"),
    ("run: x, instances: 0", "instances: line 4: should be between 1 and 100"),
    ("run: x, instances: two", "instances: line 4: should be a whole number such as 2, not 'two'"),
    ("run: x, instances: 010", "instances: line 4: should be a whole number such as 2, not '010'"),
    ("run: x, instances: 1_0", "instances: line 4: should be a whole number such as 2, not '1_0'"),
    ("run: x, instances: '2'", "instances: line 4: should be a whole number such as 2, without quotes"),
    ("run: x, port: no", "port: line 4: should be true or false, not 'no' (did you mean false?)"),
    ("run: x, user_by: header", "user_by: line 4: should be cookie or address, not 'header'"),
    ("run: x, drain: 30", "drain: line 4: should be a duration such as 500ms, 30s, 2m, 1h or 1d, not '30'"),
    (
        "run: x, drain: 12:30",
        "drain: line 4: should be a duration such as 500ms, 30s, 2m, 1h or 1d, not '12:30'",
    ),
    ("run: x, grace: 9999h", "grace: line 4: should be at most 365d"),
    (
        "run: x, limits: {memory: 512}",
        "limits.memory: line 4: should be a size such as 512MB or 1GiB, not '512'",
    ),
    ("run: x, limits: {memory: 1kB}", "limits.memory: line 4: should be at least 1MB"),
    ("run: x, limits: {cpus: 0}", "limits.cpus: line 4: should be more than 0 and at most 1024"),
    ("run: x, limits: {cpu: 1}", "limits.cpu: line 4: there is no such key (did you mean cpus?)"),
    ("run: x, needs: apii", "needs: line 4: there is no service apii (did you mean api?)"),
    ("run: x, needs: [db]", "needs: line 4: there is no service db (name a key of services)"),
    ("run: x, needs: web", "needs: line 4: web needs itself (remove it)"),
    ("run: x, needs: [api, api]", "needs: line 4: names api twice"),
    (
        "run: x, port: false, route: a.example",
        "port: line 4: is false, but the service has a route (remove one of the two)",
    ),
    (
        "run: x, port: false, health: /up",
        (
            "port: line 4: is false, but the health check asks over the network "
            "(remove it, or use health: {command: ...})"
        ),
    ),
]


@pytest.mark.parametrize(("written", "expected"), IN_SERVICE, ids=[written for written, _ in IN_SERVICE])
def test_mistake_in_a_service(written: str, expected: str) -> None:
    """One mistake in a service gives exactly one line, with its path, its line and what would be right."""
    text = with_services(f"web: {{{written} }}\napi: {{run: x}}")
    assert mistakes(text) == [f"services.web.{expected}"]


IN_ENVIRONMENT = [
    (
        "strategy: rolling",
        "strategy: line 6: should be switch, canary, or canary: {steps: [...], every: ...}, not 'rolling'",
    ),
    ("strategy: {}", "strategy: line 6: should be switch, canary, or canary: {steps: [...], every: ...}"),
    (
        "strategy: [switch]",
        "strategy: line 6: should be switch, canary, or canary: {steps: [...], every: ...}",
    ),
    ("strategy: {cannary: {}}", "strategy.cannary: line 6: there is no such key (did you mean canary?)"),
    (
        "strategy: {canary: {steps: []}}",
        "strategy.canary.steps: line 6: is empty: it should have at least one",
    ),
    (
        "strategy: {canary: {steps: 5%}}",
        "strategy.canary.steps: line 6: should be a list, not a single value (for example [5%, 50%])",
    ),
    (
        "strategy: {canary: {steps: [1%, 5]}}",
        (
            "strategy.canary.steps[1]: line 6: should be a percentage such as 5% or 0.5%, in "
            "steps of 0.01%, not '5'"
        ),
    ),
    (
        "strategy: {canary: {steps: [0.005%]}}",
        (
            "strategy.canary.steps[0]: line 6: should be a percentage such as 5% or 0.5%, in steps of 0.01%, "
            "not '0.005%'"
        ),
    ),
    (
        "strategy: {canary: {steps: [0%]}}",
        "strategy.canary.steps[0]: line 6: should be at least 0.01% and less than 100%",
    ),
    (
        "strategy: {canary: {steps: [5%, 5%]}}",
        "strategy.canary.steps[1]: line 6: should be more than the step before it, 5% (a canary only grows)",
    ),
    (
        "strategy: {canary: {steps: [5%, 100%]}}",
        (
            "strategy.canary.steps[1]: line 6: should be less than 100 % "
            "(leave it out: everybody comes after the last step by itself)"
        ),
    ),
    (
        "strategy: {canary: {steps: [{hold: 1m}]}}",
        (
            "strategy.canary.steps[0].share: line 6: is missing "
            "(share of users on the new release, 0.01% to less than 100%, for example share: 5%)"
        ),
    ),
    (
        "strategy: {canary: {every: soon}}",
        "strategy.canary.every: line 6: should be a duration such as 2m, or manual, not 'soon'",
    ),
    (
        "strategy: {canary: {analysis: x}}",
        (
            "strategy.canary.analysis: line 6: does not stand here "
            "(it stands in an environment, or at the top of the file for all of them)"
        ),
    ),
    ("monitors: []", "monitors: line 6: is not in this version of Tidegate (remove it)"),
    (
        "config: [A]",
        "config: line 6: should be a mapping of names, not a list (each name on a line of its own below it)",
    ),
    (
        "config: {A: ~}",
        'config.A: line 6: has no value: it should be text, a number or true/false; "" is the empty text',
    ),
    (
        "config: {A: [1]}",
        'config.A: line 6: should be text, a number or true/false; "" is the empty text, not a list',
    ),
    ('config: {A: "a\\0b"}', "config.A: line 6: should be text without NUL characters"),
    (
        "config: {my-key: x}",
        (
            "config.my-key: line 6: should be the name of a variable: letters, digits and _, "
            "such as LOG_LEVEL, "
            "not 'my-key'"
        ),
    ),
    (
        "config: {PORT: 80}",
        (
            "config.PORT: line 6: PORT is set by Tidegate: it is the port that the instance must listen on "
            "(use another name)"
        ),
    ),
    (
        "config: {TIDEGATE_X: 1}",
        (
            "config.TIDEGATE_X: line 6: TIDEGATE_X is set by Tidegate: names that begin with TIDEGATE_ are "
            "Tidegate's own (use another name)"
        ),
    ),
    (
        "config: {HOME: /srv}",
        (
            "config.HOME: line 6: HOME is set by Tidegate: it is the instance's own address or folder "
            "(use another name)"
        ),
    ),
    ("services: {wep: {}}", "services.wep: line 6: there is no service wep (did you mean web?)"),
    ("services: {db: {}}", "services.db: line 6: there is no service db (name a key of services)"),
    (
        "services: {web: {run: x}}",
        "services.web.run: line 6: there is no such key (known here: instances, route, limits)",
    ),
]


@pytest.mark.parametrize(
    ("written", "expected"), IN_ENVIRONMENT, ids=[written for written, _ in IN_ENVIRONMENT]
)
def test_mistake_in_an_environment(written: str, expected: str) -> None:
    """One mistake in an environment gives exactly one line."""
    assert mistakes(with_environments(f"test: {{{written}}}")) == [f"environments.test.{expected}"]


WHOLE = [
    ("", "tidegate.yaml: line 1: is empty (`tide init` writes one to start with)"),
    ("# nothing yet\n", "tidegate.yaml: line 1: is empty (`tide init` writes one to start with)"),
    ("~", "tidegate.yaml: line 1: is empty (`tide init` writes one to start with)"),
    ("[app]", "tidegate.yaml: line 1: should begin with keys such as app: my-app"),
    ("shop", "tidegate.yaml: line 1: should begin with keys such as app: my-app"),
    ("app: a\n---\napp: b\n", "tidegate.yaml: line 2: holds a second document (remove the line ---)"),
    ("[a]: 1", "tidegate.yaml: line 1: a key should be a name, not a list or a mapping"),
    ("\0", "tidegate.yaml: line 1: holds a control character (save the file as plain UTF-8 text)"),
    ("app: \ud800", "tidegate.yaml: line 1: holds a character that is no text (save the file as UTF-8)"),
    ("app: &a [*a]", 'tidegate.yaml: line 1: *a refers to itself (did you mean "*" in quotes?)'),
    (
        "app: *a",
        'tidegate.yaml: line 1: *a refers to an anchor that is not above it (did you mean "*" in quotes?)',
    ),
]


@pytest.mark.parametrize(("text", "expected"), WHOLE, ids=[repr(text) for text, _ in WHOLE])
def test_mistake_in_the_whole_file(text: str, expected: str) -> None:
    """What is wrong with the file as such is the only thing that is said."""
    assert mistakes(text) == [expected]


SYNTAX = [
    ("app: a\nservices: *\n", 2, 'a value that begins with * needs quotes: "*"'),
    (
        "app: a\n\tb: c\n",
        2,
        "indent with spaces, not with tabs; a value that begins with @, ` or % needs quotes",
    ),
    ("app: a: b\n", 1, "a value that holds a colon and a space needs quotes"),
    ('app: "x\n', 2, "check indentation, colons and quotes on this line and the one before"),
]


@pytest.mark.parametrize(("text", "line", "hint"), SYNTAX, ids=[repr(text) for text, _, _ in SYNTAX])
def test_not_yaml(text: str, line: int, hint: str) -> None:
    """What the YAML scanner refuses comes with its line and with what was probably meant."""
    (problem,) = mistakes(text)
    assert problem.startswith(f"tidegate.yaml: line {line}: is not YAML: ")
    assert problem.endswith(f"({hint})")


def test_nothing_of_the_file_is_there() -> None:
    """What must be there is named, each with an example."""
    assert mistakes("{}") == [
        "app: line 1: is missing (name of the app, for example app: shop)",
        (
            "artifact: line 1: is missing "
            "(what is built and shipped, for example artifact: {build: make dist, package: dist/})"
        ),
        (
            "services: line 1: is missing "
            "(the parts of the app that run, by name, for example services: {web: {run: ./bin/web}})"
        ),
    ]


@pytest.mark.parametrize("key", ["monitors", "notify", "runtime"])
def test_keys_of_later_versions(key: str) -> None:
    """A key that a later version has is refused as such, not ignored and not called unknown."""
    text = f"{with_services('web: {run: x}')}{key}: x\n"
    assert mistakes(text) == [f"{key}: line 5: is not in this version of Tidegate (remove it)"]


def test_image() -> None:
    """Container images belong to a later version."""
    text = with_services("web: {run: x}").replace("package: dist", "package: dist, image: .")
    assert mistakes(text) == ["artifact.image: line 2: is not in this version of Tidegate (remove it)"]


@pytest.mark.parametrize("folder", ["/etc", "../other", "a/../../b", "~/x", "a\\b", '"a\\0"', "'a\x7fb'"])
def test_package_outside(folder: str) -> None:
    """A package is a folder below the manifest."""
    text = with_services("web: {run: x}").replace("package: dist", f"package: {folder}")
    try:
        manifest.parse(text)
    except ManifestError as error:
        assert [problem.path for problem in error.problems] in (["artifact.package"], ["tidegate.yaml"])  # noqa: PT017
    else:
        pytest.fail("accepted")


def test_keys_written_twice() -> None:
    """The second of two equal keys is a mistake, at any depth, on its own line."""
    text = text_of("""
        app: shop
        artifact: {package: dist}
        services:
          web:
            run: x
            run: y
          web: {run: z}
        app: other
    """)
    assert mistakes(text) == [
        "services.web.run: line 6: is written twice, first on line 5 (keep one)",
        "services.web: line 7: is written twice, first on line 4 (keep one)",
        "app: line 8: is written twice, first on line 1 (keep one)",
    ]


def test_merge_keys_and_tags() -> None:
    """What only YAML itself understands is refused with another way to write it."""
    text = with_environments(
        "a: {config: &c {A: x}}\nb: {<<: {}, config: !!map {B: !!python/name:os.system y}}"
    )
    assert mistakes(text) == [
        (
            'environments.b."<<": line 7: there is no such key '
            "(keys cannot be merged: write them out, or use an alias for a whole value)"
        ),
        "environments.b.config: line 7: should have no tag (tag:yaml.org,2002:map) (write the value alone)",
        (
            "environments.b.config.B: line 7: should have no tag (tag:yaml.org,2002:python/name:os.system) "
            "(write the value alone)"
        ),
    ]


def test_strange_keys_are_shown_safely() -> None:
    """A key with dots, control characters or of great length cannot garble the message."""
    long = "k" * 500
    text = f'{with_services("web: {run: x}")}"a.b": 1\n"\\e[31m": 1\n{long}: 1\n'
    paths = [line.split(": line", 1)[0] for line in mistakes(text)]
    assert paths == ['"a.b"', '"\\u001b[31m"', f'"{long[:64]}"']


def test_circles() -> None:
    """Each circle of needs is named once, in order, and what only leads to one is not."""
    text = with_services("""
        a: {run: x, needs: b}
        b: {run: x, needs: c}
        c: {run: x, needs: [d, b]}
        d: {run: x}
        e: {run: x, needs: f}
        f: {run: x, needs: e}
    """)
    hint = "(none of them could start first: remove one of these needs)"
    assert mistakes(text) == [
        f"services.b.needs: line 5: services need each other in a circle: b -> c -> b {hint}",
        f"services.e.needs: line 8: services need each other in a circle: e -> f -> e {hint}",
    ]


def test_needing_a_worker() -> None:
    """A service that says that it has no port cannot be needed."""
    text = with_services("""
        web: {run: x, needs: mailer}
        mailer: {run: x, port: false}
    """)
    assert mistakes(text) == [
        (
            "services.web.needs: line 4: mailer has no port, so that nothing can call it "
            "(remove `port: false` of mailer, or mailer from needs: workers come last anyway)"
        )
    ]


def test_hosts_given_twice_in_an_environment() -> None:
    """A host leads to one service; the clash is reported once, however many environments share it."""
    text = with_services("""
        web: {run: x, route: a.example}
        api: {run: x, route: [b.example, A.EXAMPLE]}
    """)
    text += "environments: {test: {services: {web: {route: []}, api: {route: []}}}, production: {}}\n"
    assert mistakes(text) == [
        (
            "services.api.route: line 5: a.example already leads to web "
            "(a host leads to one service: use another host name)"
        )
    ]


def test_hosts_shared_by_environments() -> None:
    """The last environment keeps a host; the others are told to say their own, where they would say it."""
    text = with_services("web: {run: x, route: a.example}\napi: {run: x, route: '*'}") + text_of("""

        environments:
          test: {}
          staging:
            services:
              web: {route: a.example}
              api: {route: []}
          production: {}
    """)
    assert mistakes(text) == [
        (
            "environments.test.services.web.route: line 7: a.example is the host of web in production, too "
            "(each environment needs its own host, such as test.a.example; [] for none)"
        ),
        (
            "environments.test.services.api.route: line 7: * is the host of api in production, too "
            "(each environment needs its own host; [] for none)"
        ),
        (
            "environments.staging.services.web.route: line 10: a.example is the host of web "
            "in production, too "
            "(each environment needs its own host, such as staging.a.example; [] for none)"
        ),
    ]


def test_link_variables_are_taken() -> None:
    """The variable that holds the address of a needed service cannot be configured."""
    text = with_services("web: {run: x, needs: user-api}\nuser-api: {run: x}")
    text += "environments: {production: {config: {USER_API_URL: x, WEB_URL: x}}}\n"
    assert mistakes(text) == [
        (
            "environments.production.config.USER_API_URL: line 6: USER_API_URL is set by "
            "Tidegate: it is the address "
            "of user-api, of the same release (use another name)"
        )
    ]


def test_values_of_config_are_not_repeated() -> None:
    """A message about a configured value does not show it: it may be a secret."""
    text = with_environments(f'test: {{config: {{A: "hunter2\\0", B: {"hunter2" * 20_000}}}}}')
    assert "hunter2" not in "".join(mistakes(text))


def test_ten_mistakes() -> None:
    """A file with ten mistakes of all kinds reports exactly these ten, in the order of the file."""
    text = text_of("""
        app: My Shop
        artifact:
          build: make deps && make dist
          image: .
        services:
          web:
            run: ./bin/web
            needs: [apii]
            health: healthz
            instance: 2
          api:
            run: ./bin/api
            drain: 30
        environments:
          test:
            verify: {smoke: [up]}
          production:
            strategy:
              canary: {steps: [5%, 1%]}
            config: {PORT: 80}
    """)
    assert [line.split(" (", 1)[0] for line in mistakes(text)] == [
        (
            "app: line 1: should be a name: a small letter, then small letters, digits and "
            "-, at most 40, not 'My Shop'"
        ),
        "artifact.package: line 2: is missing",
        "artifact.image: line 4: is not in this version of Tidegate",
        "services.web.needs: line 8: there is no service apii",
        "services.web.health: line 9: should be a path such as /healthz, not 'healthz'",
        "services.web.instance: line 10: there is no such key",
        "services.api.drain: line 13: should be a duration such as 500ms, 30s, 2m, 1h or 1d, not '30'",
        "environments.test.verify.smoke[0]: line 16: should be a path such as /healthz, not 'up'",
        (
            "environments.production.strategy.canary.steps[1]: line 19: should be more than "
            "the step before it, 5%"
        ),
        (
            "environments.production.config.PORT: line 20: PORT is set by Tidegate: it is "
            "the port that the instance "
            "must listen on"
        ),
    ]


def test_a_wrong_name_is_not_reported_twice() -> None:
    """Services with a wrong name are still services: who needs them is not told that they are missing."""
    text = with_services("""
        Web: {run: x}
        api: {run: x, needs: [web]}
        cart: {run: [], needs: api}
    """)
    paths = [line.split(": line", 1)[0] for line in mistakes(text)]
    assert paths == ["services.Web", "services.api.needs", "services.cart.run"]


def test_wrong_steps_bring_no_other_mistakes() -> None:
    """A step that cannot be read does not make its neighbours wrong."""
    text = with_environments("test: {strategy: {canary: {steps: [x, 1%, 1%]}}}")
    assert [line.split(": line", 1)[0] for line in mistakes(text)] == [
        "environments.test.strategy.canary.steps[0]"
    ]


def test_the_heading_counts() -> None:
    """The whole error says how many mistakes there are, each on a line of its own."""
    with pytest.raises(
        ManifestError, match=r"^tidegate.yaml has 3 mistakes:\n  app: .*\n  artifact: .*\n  services: "
    ):
        manifest.parse("{}")
