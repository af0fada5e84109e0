"""Django as people set it up behind a proxy: what it makes of a request, on port 3000.

It is copied into a workspace's folder, with Django beside it, and runs there.
"""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.middleware.csrf import get_token
from django.urls import re_path


def see(request: HttpRequest) -> JsonResponse:
    seen: dict[str, Any] = {
        "method": request.method,
        "uri": request.build_absolute_uri(),
        "secure": request.is_secure(),
        "token": get_token(request),
    }
    return JsonResponse(seen)


urlpatterns = [re_path("", see)]

if __name__ == "__main__":
    settings.configure(
        DEBUG=True,
        SECRET_KEY="of a test",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=[".localhost"],
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        USE_I18N=False,  # no translations are copied
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    )
    serve = ["runserver", "--noreload", "--skip-checks", "0.0.0.0:3000"]
    execute_from_command_line([sys.argv[0], *serve])
