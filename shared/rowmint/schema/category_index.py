"""The codes of a categorical column's values."""

from rowmint.errors import ValueNotFoundError
from rowmint.lazy import lazy
from rowmint.schema.cell import Cell, cell_text, near_names
from rowmint.schema.column import ColumnSpec


class CategoryIndex:
    """Finds the codes of cells of one categorical or boolean column.

    Args:
        column: The column; its categories are known.
    """

    def __init__(self, column: ColumnSpec) -> None:
        self._column = column
        # A boolean equals a number in Python, but is another category.
        self._codes = {
            (isinstance(category, bool), category): code for code, category in enumerate(column.domain.categories)
        }

    def code(self, cell: Cell) -> int:
        """Return the code of a present cell, or of its text where no category equals it.

        "1" finds the category 1 and 1 the category "1": a caller cannot always know a category's type.

        Raises:
            ValueNotFoundError: No category equals the cell or has its text; near categories are given.
        """
        code = self._codes.get((isinstance(cell, bool), cell))
        if code is not None:
            return code
        text = cell_text(cell)
        if text not in self._texts:
            raise ValueNotFoundError(
                self._column.name, text, near_names(text, list(self._texts)) or list(self._texts)[:3]
            )
        return self._texts[text]

    @lazy
    def _texts(self) -> dict[str, int]:
        categories = self._column.domain.categories
        return {cell_text(category): code for code, category in enumerate(categories) if category is not None}
