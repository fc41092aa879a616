"""General text by which forgetting is measured, written for this project.

Short on purpose: about a thousand tokens cost a few seconds on a CPU and show damage of a tenth of a nat.
"""

from __future__ import annotations

ENGLISH = (
    """A river carries more than water. Every spring, when the snow in the hills begins to melt, the stream
that runs past the village grows brown with soil, and what it takes from the slopes it lays down
again on the flat meadows near the sea. Farmers have known this for a very long time. They built
their houses on the higher ground, left the lowest fields to grass, and let the flood do the work of
a thousand carts of manure. When engineers later built walls along both banks, the floods stopped,
and for some years everybody was pleased. Then the harvests became smaller, and the people had to
buy what the river had once brought them for nothing.""",
    """Bread needs four things: flour, water, salt and time. Mix the flour with most of the water and let
it rest for half an hour before you add the salt, because the dough becomes easier to work when the
flour has drunk its fill. Fold it a few times during the first two hours. It is ready when it has
almost doubled and trembles a little if you shake the bowl. Shape it gently, let it rest in a cool
place overnight, and bake it in a very hot oven. Do not cut the loaf while it is still hot; the
inside goes on cooking for another hour.""",
    """Question: Why does the moon always show us the same side?
Answer: The moon turns once around its own axis in the time that it takes to travel once around the
earth, which is a little more than twenty-seven days. The pull of the earth has slowed its turning until
the two periods became equal. From the earth we therefore see the same half of its surface, apart from a
small wobble, and no one had seen the far side before a spacecraft photographed it in 1959.""",
)

PYTHON = (
    '''import heapq


def shortest_path(graph, start, goal):
    """Return the length of the shortest path from start to goal, or None."""
    distances = {start: 0}
    queue = [(0, start)]
    while queue:
        distance, node = heapq.heappop(queue)
        if node == goal:
            return distance
        if distance > distances[node]:
            continue
        for neighbour, weight in graph[node].items():
            candidate = distance + weight
            if candidate < distances.get(neighbour, float("inf")):
                distances[neighbour] = candidate
                heapq.heappush(queue, (candidate, neighbour))
    return None
''',
    '''class Stack:
    """A last-in, first-out collection."""

    def __init__(self):
        self._items = []

    def push(self, item):
        self._items.append(item)

    def pop(self):
        if not self._items:
            raise IndexError("pop from an empty stack")
        return self._items.pop()

    def __len__(self):
        return len(self._items)


def balanced(text):
    pairs = {")": "(", "]": "[", "}": "{"}
    stack = Stack()
    for character in text:
        if character in pairs.values():
            stack.push(character)
        elif character in pairs:
            if not len(stack) or stack.pop() != pairs[character]:
                return False
    return len(stack) == 0
''',
)

FORGETTING_TEXTS: dict[str, tuple[str, ...]] = {"English": ENGLISH, "Python": PYTHON}
