"""What all views under `/v1` share: they ask for an API key, and answer errors as JSON."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar, cast

from django.http import HttpResponse
from rest_framework.exceptions import NotFound
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.views import APIView

from orchestrator_site.base.access.scopes import Access
from orchestrator_site.base.http import error_texts
from orchestrator_site.base.http.api_errors import ApiError
from orchestrator_site.base.http.api_keys import ApiKeyAuthentication
from orchestrator_site.base.http.fields import StrictField
from orchestrator_site.base.http.pagination import CursorPagination, Page
from orchestrator_site.base.http.serializers import AnswerSerializer

T = TypeVar("T")


class ApiView(APIView):
    """A view that answers JSON whatever `Accept` says; one that has other media types looks at the header itself."""

    http_method_names = ["get", "head", "post", "delete"]
    authentication_classes = [ApiKeyAuthentication]
    tag: ClassVar[str]  # the group of its operations in the OpenAPI document
    path_fields: ClassVar[Mapping[str, StrictField]] = {}  # the parameters in the path, for the OpenAPI document
    not_found: ClassVar[str] = ""  # the sentence of a 404
    pagination_class: type[CursorPagination]
    query: dict[str, Any]  # the query parameters, which `operation` has read
    namespace: str | None  # whose jobs the request is for, which `operation` has found out; None if it is for all
    body: Any  # and the body

    def initial(self, request: Request, *_args: Any, **_kwargs: Any) -> None:
        """Authenticate the request, before anything else of it is read."""
        self.perform_authentication(request)
        if self.authentication_classes and self.access.read_only and request.method not in SAFE_METHODS:
            raise ApiError(HTTPStatus.FORBIDDEN, error_texts.READ_ONLY_KEY)

    @property
    def access(self) -> Access:
        """What the API key of the request allows."""
        return cast("Access", self.request.auth)

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:  # noqa: ARG002 - the base's signature
        """Take the first renderer. Without this, `Accept` is read with the parser of e-mail (see `media_types`)."""
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type

    def answer_page(self, serializer: type[AnswerSerializer], find: Callable[..., Page[Any]]) -> HttpResponse:
        """Answer with the page that `find` returns for the query parameters, which are its keyword arguments."""
        paginator = self.pagination_class()
        found = paginator.paginate_queryset(find, self.request, self)
        response: HttpResponse = paginator.get_paginated_response([serializer.show(item) for item in found])
        return response

    def found(self, thing: T | None) -> T:
        """Return what the path names. Raise the 404 of this view if there is none."""
        if thing is None:
            raise ApiError(HTTPStatus.NOT_FOUND, self.not_found)
        return thing


class UnknownView(ApiView):
    """The 404 of all other URLs under `/v1`."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        raise NotFound
